"""PairRM (Jiang et al., ACL 2023, arXiv 2306.02561): one encoder reads a prompt and two answers, and likes one more.

A judge of two answers. It may like a place, so ask in both orders; ``score`` of one answer does, against a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards import registry
from diffpref.rewards._layout import fill
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._text_judge import TextJudge
from diffpref.rewards._tokenizers import load_tokenizer
from diffpref.rewards._vlm import grouped
from diffpref.rewards._weights import UNREADABLE, Precision, content_version, first_line

__all__ = ["PUBLISHED", "PairRanker", "load_pair_reward"]

PUBLISHED = Published(
    "pair_reward",
    "llm-blender/PairRM-hf",
    ("model.safetensors", "config.json", "tokenizer_config.json"),
    "MIT",
    also=("tokenizer.json", "added_tokens.json", "special_tokens_map.json", "spm.model"),
)
PREFIXES = {
    "source_prefix_id": "<|source|>",
    "cand1_prefix_id": "<|candidate1|>",
    "cand2_prefix_id": "<|candidate2|>",
}
"""Keys of the configuration -> the token before each text, whose last state stands for it."""


class PairRanker(nn.Module):
    """DeBERTa v3 and a head; modules have the names of the published state dict.

    Args:
        config: a ``DebertaV2Config``.
        tasks: numbers that the head gives each answer; their mean counts.
    """

    def __init__(self, config: Any, tasks: int = 1) -> None:
        super().__init__()
        from transformers import DebertaV2Model

        width = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.ModuleDict({"1": nn.Linear(2 * width, width), "4": nn.Linear(width, tasks)})

    def forward(self, input_ids: Tensor, places: Tensor) -> Tensor:
        """Return (N,) float32 log-odds that the first answer is the better one.

        Args:
            input_ids: (N, T) prompt, first and second answer, none of it padding.
            places: (N, 3) where the three prefixes stand.
        """
        states = self.pretrained_model(input_ids=input_ids).last_hidden_state
        rows = torch.arange(len(places), device=places.device)[:, None]
        source, first, second = states[rows, places].float().unbind(dim=1)
        one, other = (self._head(torch.cat([source, answer], dim=1)) for answer in (first, second))
        return (one - other).mean(dim=1)

    def _head(self, x: Tensor) -> Tensor:
        numbers: Tensor = self.head_layer["4"](self.head_layer["1"](x).tanh())
        return numbers


class _Reader:
    """Prompts and answers as the published model reads them."""

    def __init__(self, tokenizer: Any, prompt_length: int, answer_length: int) -> None:
        self.tokenizer, self.prompt_length = tokenizer, prompt_length
        self.length = prompt_length + 2 * answer_length

    def __call__(self, first: str, second: str, prompt: str) -> dict[str, Tensor]:
        texts = (prompt, first, second)
        parts: list[list[int]] = []
        for text, prefix in zip(texts, PREFIXES.values(), strict=True):
            room = (self.length - len(parts[0])) // 2 if parts else self.prompt_length
            parts.append(self.tokenizer.encode(prefix + text, max_length=room, truncation=True))
        start = self.tokenizer.convert_tokens_to_ids(list(PREFIXES.values()))
        places, before = [], 0
        for part, token in zip(parts, start, strict=True):
            places.append(before + part.index(token))  # the first: a text may hold the words of a prefix too
            before += len(part)
        return {"input_ids": torch.tensor([list(chain(*parts))]), "places": torch.tensor([places])}


@registry.register("pair_reward")
def load_pair_reward(
    path: str | None = None,
    *,
    prompt_length: PositiveInt = 1224,
    answer_length: PositiveInt = 412,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 8,
) -> Reward:
    """Load PairRM, or a model of its layout.

    ``compare(first, second, prompts)`` is P(first is better); ``score`` wants ``metadata[i]["reference"]``, an answer
    to compare with, and gives the log-odds against it.

    Args:
        path: hub id or folder with ``model.safetensors``, ``config.json`` and the tokenizer's files.
        prompt_length: tokens that are read of a prompt; longer ones are cut, as published.
        answer_length: tokens that are read of each answer; what a prompt leaves free is shared by both answers.
        device: where it runs.
        precision: of the encoder; the head is always computed in float32.
        micro_batch: pairs of one length that run at once.

    Raises:
        ConfigError: lengths too small for a prefix.
        ModelError: a file is missing or of another layout.
    """
    from transformers import DebertaV2Config

    if min(prompt_length, answer_length) < 4:
        raise ConfigError("reward 'pair_reward': prompt_length and answer_length must be at least 4 tokens")
    folder = PUBLISHED.find(path)
    weights = PUBLISHED.file(folder, "model.safetensors")
    try:
        config = DebertaV2Config.from_pretrained(folder)
        model = PairRanker(config, int(getattr(config, "n_tasks", 1)))
    except UNREADABLE as error:
        raise ModelError(f"{folder}: config.json is none of PairRM's: {first_line(error)}") from error
    fill(model, read_tensors(weights), weights, dtype=getattr(torch, precision), spare=("*.position_ids",))
    model.head_layer.float()
    model.to(device)
    tokenizer = load_tokenizer(folder, config.vocab_size)
    _check_prefixes(folder, config, tokenizer)
    reader = _Reader(tokenizer, prompt_length, answer_length)

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(batch["input_ids"].to(device), batch["places"].to(device)).cpu()
        return logits

    def log_odds(first: Sequence[str], second: Sequence[str], prompts: Sequence[str]) -> Tensor:
        rows = [reader(*texts) for texts in zip(first, second, prompts, strict=True)]
        return torch.stack(grouped(rows, run, micro_batch))

    lengths = "" if (prompt_length, answer_length) == (1224, 412) else f"{prompt_length}-{answer_length}"
    told = (content_version(folder), lengths, precision)
    info = RewardInfo(
        name="pair_reward",
        version="+".join(part for part in told if part not in ("", "float32")),
        licence=PUBLISHED.licence,
        range=(-10.0, 10.0),
        needs_metadata=True,
        media="text",
    )
    return TextJudge(info, log_odds)


def _check_prefixes(folder: Path, config: Any, tokenizer: Any) -> None:
    for key, token in PREFIXES.items():
        wanted, found = getattr(config, key, None), tokenizer.convert_tokens_to_ids(token)
        if wanted is None or wanted != found:
            raise ModelError(f"{folder}: config.json says {key} {wanted}, the tokenizer has {token} as {found}")

"""Who turns prompt and answer into an embedding: a published general preference model, or what a run has trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.models import load_family
from diffpref.models.decoders import decoder_of
from diffpref.models.heads import load_heads
from diffpref.rewards._text_network import context_of, open_network
from diffpref.rewards._tokenizers import load_tokenizer
from diffpref.rewards._vlm import grouped
from diffpref.rewards._weights import UNREADABLE, Precision, first_line

__all__ = ["Embedder", "Scales", "open_published", "open_run"]

Scales: TypeAlias = Literal["example", "training"]
"""What a prompt's head says of each block of two: ``example``: softmax of its logits, as in the official example;
``training``: the number of blocks times the softmax of logits / sqrt(width), as in the official training code."""
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Embedder:
    """Embeddings of answers.

    Args:
        size: numbers of an embedding.
        tokens: prompt and answer -> what is read, as of a batch of one.
        run: tokens of n rows of one length -> (n, 2, size): embeddings, and the factor of each of their numbers.
        context: longest row, tokens.
        micro_batch: rows that run at once.
    """

    size: int
    tokens: Callable[[str, str], dict[str, Tensor]]
    run: Callable[[Mapping[str, Tensor]], Tensor]
    context: int | None
    micro_batch: int

    @torch.no_grad()
    def __call__(self, answers: Sequence[str], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (N, size) float32 embeddings of N answers, not normalised, and (N, size) factors of their prompts.

        Raises:
            DataError: a row is too long.
        """
        pairs = list(dict.fromkeys(zip(prompts, answers, strict=True)))
        rows = []
        for prompt, answer in pairs:
            row = self.tokens(prompt, answer)
            length = row["input_ids"].shape[1]
            if self.context is not None and length > self.context:
                raise DataError(f"reward 'gpm': {length} tokens of '{prompt[:40]}', and the model reads {self.context}")
            rows.append(row)
        found = dict(zip(pairs, grouped(rows, self.run, self.micro_batch), strict=True))
        said = torch.stack([found[pair] for pair in zip(prompts, answers, strict=True)])
        return said[:, 0], said[:, 1]


def open_published(
    folder: Path, *, scales: Scales, device: str, precision: Precision, micro_batch: int
) -> tuple[Embedder, Any]:
    """Open a decoder with ``value_head.weight``, and ``prompt_head.weight`` where blocks have scales of the prompt.

    Prompt and answer go through the chat template, and the last token becomes the end of text: so the official example.

    Raises:
        ModelError: no such head, or no decoder.
    """
    from transformers import AutoModel

    network, found = open_network("gpm", AutoModel, str(folder), device=device, precision=precision, allow_pickle=False)
    heads = _heads_in(folder)
    if "value_head.weight" not in heads:
        raise ModelError(
            f"{folder}: no value_head.weight in its safetensors; reward 'gpm' reads embeddings of that head"
        )
    value, prompt_head = heads["value_head.weight"].float().to(device), heads.get("prompt_head.weight")
    size, width = value.shape[0], network.config.get_text_config().hidden_size
    wanted = {"value_head.weight": (size, width), "prompt_head.weight": (size // 2, width)}
    for name, tensor in heads.items():
        if tuple(tensor.shape) != wanted[name] or size % 2:
            raise ModelError(
                f"{folder}: {name} is {tuple(tensor.shape)}, expected an even number of rows, {wanted[name]}"
            )
    tokenizer = load_tokenizer(found, network.get_input_embeddings().num_embeddings)
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no chat template or no end-of-text token")

    def tokens(prompt: str, answer: str) -> dict[str, Tensor]:
        asked = [{"role": "user", "content": prompt}]
        begin, whole = (
            tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids
            for messages in (asked, [*asked, {"role": "assistant", "content": answer}])
        )
        whole[-1] = tokenizer.eos_token_id
        return {"input_ids": torch.tensor([whole]), "end": torch.tensor([len(begin) - 1])}

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        states = network(input_ids=batch["input_ids"].to(device)).last_hidden_state.float()
        embeds = states[:, -1] @ value.T
        factors = torch.ones_like(embeds)
        if prompt_head is not None:
            ends = states[torch.arange(len(states)), batch["end"].clamp(max=states.shape[1] - 1)]
            logits = ends @ prompt_head.float().to(device).T
            if scales == "training":
                share = (logits / width**0.5).softmax(dim=1) * logits.shape[1]
            else:
                share = logits.softmax(dim=1)
            factors = share.repeat_interleave(2, dim=1)
        return torch.stack([embeds, factors], dim=1).cpu()

    return Embedder(size, tokens, run, context_of(network, tokenizer), micro_batch), network


def _heads_in(folder: Path) -> dict[str, Tensor]:
    found = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                for name in {"value_head.weight", "prompt_head.weight"} & set(opened.keys()):
                    found[name] = opened.get_tensor(name)
    except UNREADABLE as error:
        raise ModelError(f"{folder}: its safetensors cannot be read: {first_line(error)}") from error
    return found


def open_run(
    folder: Path, base: str | None, *, chat: bool | None, device: str, precision: Precision, micro_batch: int
) -> Embedder:
    """Open what a run on a language model left: ``heads/`` that say an embedding, with ``model/`` or ``lora/``.

    Args:
        folder: of the run.
        base: what was trained; None: as the run's ``config.yaml`` says.
        chat: whether prompts go through the chat template; None: where there is one.
        device: where it runs.
        precision: of the network; heads are float32.
        micro_batch: rows of one length that run at once.

    Raises:
        ModelError: the heads say something else, or there are no weights.
        ConfigError: a chat is asked of a tokenizer without a template.
    """
    heads = load_heads(folder / "heads").to(device).requires_grad_(False).float()
    if "embedding" not in heads.says or heads.size % 2:
        raise ModelError(
            f"{folder / 'heads'}: says {', '.join(sorted(heads.says))} of {heads.size} numbers; reward 'gpm' reads an"
            " embedding of an even number of them"
        )
    trained = next((name for name in ("lora", "model") if (folder / name).is_dir()), None)
    if trained is None:
        raise ModelError(f"{folder}: holds heads but neither lora/ nor model/ beside them")
    family: Any = load_family("causal_lm", base or _base_of(folder), precision=PRECISIONS[precision])
    family.apply(str(folder / trained), trained == "lora")
    family.to(device)
    if heads.width != family.network.config.get_text_config().hidden_size:
        raise ModelError(f"{folder / 'heads'}: of width {heads.width}, and the model is of another")
    templated = bool(family.tokenizer.chat_template) if chat is None else chat
    if templated and not family.tokenizer.chat_template:
        raise ConfigError("reward 'gpm': template is chat, and the tokenizer has no chat template")

    def tokens(prompt: str, answer: str) -> dict[str, Tensor]:
        if templated:
            messages = [{"role": "user", "content": prompt}]
            begin, (end,) = family.encode(messages, [[{"role": "assistant", "content": answer}]])
        else:
            begin, (end,) = family.encode(prompt, [answer])
        return {"input_ids": torch.tensor([[*begin, *end]])}

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        decoder = decoder_of(family.network)
        ends = decoder(input_ids=batch["input_ids"].to(device)).last_hidden_state[:, -1].float()
        embeds = heads(ends, None, ends)["embedding"]
        return torch.stack([embeds, torch.ones_like(embeds)], dim=1).cpu()

    return Embedder(heads.size, tokens, run, family.context, micro_batch)


def _base_of(folder: Path) -> str:
    try:
        told = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]["path"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder}: no config.yaml that says what was trained; name it with base: hub id or folder"
        ) from (error)
    return str(told)

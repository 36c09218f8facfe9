"""Prompts and seeds to answers with a transformers model, batched, each answer a function of its prompt and seed.

The k-th token of an answer is where the k-th number of ``torch.Generator().manual_seed(seed)`` falls in the model's
distribution, likeliest tokens first. Every model call has the same number of rows, short batches being repeated, and as
many columns as its prompt's length rounded up, so that an answer does not depend on what is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, DataError

__all__ = [
    "Encode",
    "KeyedDraw",
    "MakeProcessor",
    "Processor",
    "TextSampler",
    "TextSettings",
    "nucleus",
    "plain_generation",
]

Encode: TypeAlias = Callable[[str], Sequence[int]]
"""A prompt to the token ids after which the model answers."""
Processor: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A logits processor of transformers: (N, T) ids so far and (N, V) scores to (N, V) scores."""
MakeProcessor: TypeAlias = Callable[[Tensor], Processor]
"""Makes a processor for one batch from the (N, T) attention mask of its prompts, which are padded on the left."""
COLUMNS = 16  # widths of prompts are rounded up to a multiple of it


@dataclass(frozen=True)
class TextSettings:
    """How answers are drawn.

    Args:
        max_new_tokens: tokens of an answer at most, its end token among them.
        temperature: of the distribution; 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have this probability; 1 takes all.
        top_k: draw from so many likeliest tokens; None takes all.
        batch_size: answers drawn at once.
        chat: put a prompt into the tokenizer's chat template, as what the user says.

    Raises:
        ConfigError: a value out of its range.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    batch_size: int = 64
    chat: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size", "top_k"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, got {value}")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: must be >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: must be > 0 and <= 1, got {self.top_p}")

    def __str__(self) -> str:
        limits = f", top_p {self.top_p:g}" * (self.top_p < 1) + f", top_k {self.top_k}" * (self.top_k is not None)
        return f"temperature {self.temperature:g}{limits}, {self.max_new_tokens} tokens" + ", chat" * self.chat


def nucleus(logits: Tensor, settings: TextSettings) -> tuple[Tensor, Tensor]:
    """Return the distribution that tokens are drawn from.

    Args:
        logits: (N, V) of the model.
        settings: temperature > 0, top_p, top_k.

    Returns:
        (N, V) float64 probabilities, largest first, and the (N, V) tokens that they belong to. Tokens left out have 0.
    """
    probabilities = (logits.double() / settings.temperature).softmax(-1)
    # a stable sort: equal probabilities keep the tokens' order on every machine
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    kept = ordered.cumsum(-1) - ordered < settings.top_p
    if settings.top_k is not None:
        kept[:, settings.top_k :] = False
    ordered = ordered * kept
    return ordered / ordered.sum(-1, keepdim=True), tokens


class KeyedDraw:
    """A logits processor of transformers that has drawn: of each row's scores it leaves one token.

    Args:
        seeds: of each row.
        start: columns of the prompts.
        settings: of the draw.
    """

    def __init__(self, seeds: Sequence[int], start: int, settings: TextSettings) -> None:
        self.start, self.settings = start, settings
        draws = {
            seed: torch.rand(
                settings.max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            for seed in set(seeds)
        }
        self.uniform = torch.stack([draws[seed] for seed in seeds])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return (N, V) scores: 0 for the drawn token, minus infinity for the others."""
        if self.settings.temperature == 0:
            token = scores.argmax(-1, keepdim=True)
        else:
            ordered, tokens = nucleus(scores, self.settings)
            uniform = self.uniform[:, input_ids.shape[1] - self.start].to(scores.device)
            # rounding can leave the sum a little below one: a draw above it takes the last token that is left in
            last = (ordered > 0).sum(-1, keepdim=True) - 1
            place = (ordered.cumsum(-1) <= uniform[:, None]).sum(-1, keepdim=True)
            token = tokens.gather(-1, place.minimum(last))
        return torch.full_like(scores, float("-inf")).scatter(-1, token, 0.0)


class TextSampler:
    """Prompts and seeds to answers.

    Args:
        network: a transformers model that generates.
        tokenizer: its tokenizer, with an end token.
        settings: length, temperature, batch.
        encode: turns a prompt into token ids; None takes the tokenizer, or its chat template where the settings say so.
        processors: change the scores before the draw, in this order; made anew for each batch.

    Raises:
        ConfigError: the tokenizer has no end token, or lacks the chat template that is asked for.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        settings: TextSettings,
        *,
        encode: Encode | None = None,
        processors: Sequence[MakeProcessor] = (),
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no end token; set eos_token in its files")
        if settings.chat and encode is None and not tokenizer.chat_template:
            raise ConfigError(
                "chat: the tokenizer has no chat template; leave chat out, and prompts are read as they are"
            )
        self.network, self.tokenizer, self.settings = network, tokenizer, settings
        self.encode: Encode = encode or self._encode
        self.processors = tuple(processors)
        self.pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ends = network.generation_config.eos_token_id  # chat models end a turn and a text with different tokens
        self.ends = sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends] if ends else [])})

    def _encode(self, prompt: str) -> Sequence[int]:
        if not self.settings.chat:
            return list(self.tokenizer(prompt)["input_ids"])
        said = [{"role": "user", "content": prompt}]
        templated = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)
        return list(templated["input_ids"])

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Draw an answer to each prompt from each seed; special tokens are left out of the text.

        Raises:
            ConfigError: not as many seeds as prompts.
            DataError: a prompt has no tokens, or more than the model reads.
        """
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in self.tokens(prompts, seeds)]

    def tokens(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[int]]:
        """Draw the token ids of an answer to each prompt from each seed.

        The end token is the last one, or the answer is as long as the settings allow.

        Raises:
            ConfigError: not as many seeds as prompts.
            DataError: a prompt has no tokens, or more than the model reads.
        """
        if len(prompts) != len(seeds):
            raise ConfigError(f"a seed is needed for each prompt: got {len(prompts)} prompts and {len(seeds)} seeds")
        encoded: Mapping[str, list[int]] = {prompt: list(self.encode(prompt)) for prompt in dict.fromkeys(prompts)}
        widths = {prompt: self._width(prompt, ids) for prompt, ids in encoded.items()}
        answers: dict[int, list[int]] = {}
        size = self.settings.batch_size
        for width in sorted(set(widths.values())):
            rows = [row for row, prompt in enumerate(prompts) if widths[prompt] == width]
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                padded = part + [part[-1]] * (size - len(part))
                drawn = self._draw([encoded[prompts[row]] for row in padded], [seeds[row] for row in padded], width)
                answers.update(zip(part, drawn, strict=False))
        return [answers[row] for row in range(len(prompts))]

    def _width(self, prompt: str, ids: Sequence[int]) -> int:
        limit = getattr(self.network.config, "max_position_embeddings", None)
        if not ids:
            raise DataError(f"the prompt {prompt[:60]!r} has no tokens")
        if limit is not None and len(ids) + self.settings.max_new_tokens > limit:
            raise DataError(
                f"the prompt {prompt[:60]!r} has {len(ids)} tokens; with {self.settings.max_new_tokens} new ones that"
                f" is more than the {limit} that the model reads"
            )
        return -(-len(ids) // COLUMNS) * COLUMNS

    @torch.no_grad()
    def _draw(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], width: int) -> list[list[int]]:
        """Draw for one batch of prompts, padded on the left."""
        ids = torch.full((len(prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        device = next(self.network.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        draw = KeyedDraw(seeds, width, self.settings)
        with plain_generation(self.network) as network:
            found = network.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad,
                eos_token_id=self.ends,
                logits_processor=[*(make(mask) for make in self.processors), draw],
            )
        return [self._until_end(row[width:]) for row in found.tolist()]

    def _until_end(self, ids: list[int]) -> list[int]:
        length = next((place + 1 for place, token in enumerate(ids) if token in self.ends), len(ids))
        return ids[:length]


@contextmanager
def plain_generation(network: Any) -> Iterator[Any]:
    """Take away what a checkpoint says of generation, penalties and temperatures among it, and dropout."""
    from transformers import GenerationConfig

    kept, training = network.generation_config, network.training
    network.generation_config = GenerationConfig()
    network.eval()
    try:
        yield network
    finally:
        network.generation_config = kept
        network.train(training)

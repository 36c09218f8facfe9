"""Answers about a picture that is mostly hidden: what a model says when it goes by habit instead of by what it sees.

Bias-driven hallucination sampling (BDHS) follows a good answer sentence by sentence. The head of each sentence stays,
the model regenerates its tail after the original sentences before it, and attention to most of the picture's tokens is
blocked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random, hash_key
from diffpref.sampling.text import KeyedDraw, TextSettings, plain_generation

__all__ = ["HiddenSampler", "HiddenSettings", "Similarity", "flipped", "guided_heads", "hidden_tokens", "sentences"]

Similarity: TypeAlias = Callable[[str, str], float]
"""Two texts to how alike they are, such as the cosine of their sentence embeddings; 1 = the same."""
SENTENCE = re.compile(r".*?(?:[.!?]+(?=\s|$)|$)", re.DOTALL)
ENDS = ".!?"
YES_NO = re.compile(r"\s*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class HiddenSettings:
    """How rejected answers are made.

    Args:
        threshold: share of the picture's tokens that are hidden; 0 hides none.
        flip_prob: chance that a sentence that begins with yes or no begins with the other.
        max_similarity: a more similar answer is drawn again.
        attempts: such draws; after them one answer is drawn without heads.
        text: length of a tail, temperature.

    Raises:
        ConfigError: a value out of its range.
    """

    threshold: float = 0.99
    flip_prob: float = 0.5
    max_similarity: float = 0.97
    attempts: int = 5
    text: TextSettings = field(default_factory=TextSettings)

    def __post_init__(self) -> None:
        for name in ("threshold", "flip_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be between 0 and 1, got {getattr(self, name)}")
        if self.attempts < 1:
            raise ConfigError(f"attempts: must be at least 1, got {self.attempts}")


def sentences(text: str) -> list[str]:
    """Divide a text into sentences, each with the space before it: joined they are the text.

    >>> sentences("A cat. It sat on 3.5 mats! Yes")
    ['A cat.', ' It sat on 3.5 mats!', ' Yes']
    """
    return [part for part in SENTENCE.findall(text) if part]


def flipped(head: str) -> str:
    """Return a sentence's head with no for yes and yes for no; any other as it is.

    >>> flipped("Yes, it"), flipped("no"), flipped("Nobody")
    ('No, it', 'yes', 'Nobody')
    """
    found = YES_NO.match(head)
    if found is None:
        return head
    word = found[1]
    other = "no" if word.lower() == "yes" else "yes"
    other = other.upper() if word.isupper() else other.title() if word.istitle() else other
    return head[: found.start(1)] + other + head[found.end(1) :]


def guided_heads(parts: Sequence[str], random: Random, *key: int | str, flip_prob: float = 0.5) -> list[str]:
    """Return the head of each sentence: its first words up to a random one, never all; yes and no perhaps flipped.

    Args:
        parts: of `sentences`.
        random: of the run.
        key: of the draws.
        flip_prob: as in `HiddenSettings`.
    """
    draw = random.numpy("sentence heads", *key)
    heads = []
    for part in parts:
        ends = [word.end() for word in re.finditer(r"\S+", part)]
        cut, flip = float(draw.random()), bool(draw.random() < flip_prob)
        head = part[: ends[int(cut * (len(ends) - 1))]] if len(ends) > 1 else part.rstrip().rstrip(ENDS)
        heads.append(flipped(head) if flip else head)
    return heads


def hidden_tokens(ids: Tensor, image_token: int, threshold: float, random: Random, *key: int | str) -> Tensor:
    """Return (T,) which tokens are hidden: those of pictures whose keyed uniform number is below the threshold.

    Args:
        ids: (T,) of a prompt.
        image_token: what stands for a part of a picture.
        threshold: 0 hides none, 1 all.
        random: of the run.
        key: of the draws.
    """
    uniform = torch.rand(len(ids), generator=random.generator("hidden tokens", *key), dtype=torch.float64)
    return (ids == image_token) & (uniform < threshold)


class HiddenSampler:
    """Good answers to bad ones, by a model that sees little.

    Args:
        family: a vision-language model with its processor and network.
        settings: what is hidden, and how tails are drawn.
        random: of the run.
        similarity: tells when an answer is too much like the good one; None draws again only what is equal to it.

    Raises:
        ConfigError: the family sees nothing, or counts positions by what is visible.
    """

    def __init__(
        self, family: Any, settings: HiddenSettings, random: Random, similarity: Similarity | None = None
    ) -> None:
        if not family.sees:
            raise ConfigError(f"model.family: {family.name} sees no pictures, so nothing can be hidden; take vlm")
        if hasattr(getattr(family.network, "model", None), "get_rope_index"):
            raise ConfigError(
                f"model.path: {type(family.network).__name__} derives positions from the attention mask, so tokens"
                " cannot be hidden by it; take a model of the LLaVA kind"
            )
        self.family, self.settings, self.random = family, settings, random
        self.similarity: Similarity = similarity or (lambda one, other: float(one == other))
        config, tokenizer = family.network.config, family.tokenizer
        image = getattr(config, "image_token_id", None)
        self.image_token = int(config.image_token_index if image is None else image)
        self.ends = [tokenizer.eos_token_id]
        self.pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def __call__(self, prompt: Any, answer: str, pictures: Sequence[Any], key: str, **template: Any) -> str:
        """Return an answer that the model makes of a good one.

        Args:
            prompt: text or messages.
            answer: the good one.
            pictures: of the prompt, RGB.
            key: of the draws; the same key gives the same answer.
            template: further arguments of the chat template.

        Raises:
            DataError: no pictures, an empty answer, or more tokens than the model reads.
        """
        parts = sentences(answer)
        if not pictures or not answer.strip():
            raise DataError("an answer is made of a good one and of a picture to hide, and one of them is not there")
        start = self.family.encode(
            prompt,
            [[{"role": "assistant", "content": answer}]] if not isinstance(prompt, str) else [answer],
            pictures,
            **template,
        )[0]
        shown = self.family.look(pictures)
        for attempt in range(self.settings.attempts):
            heads = guided_heads(parts, self.random, key, attempt, flip_prob=self.settings.flip_prob)
            before = ["".join(parts[:number]) + head for number, head in enumerate(heads)]
            tails = self._continue(start, shown, before, key, attempt, sentence=True)
            made = "".join(head + tail for head, tail in zip(heads, tails, strict=True))
            if self.similarity(made, answer) <= self.settings.max_similarity and made != answer:
                return made
        return self._continue(start, shown, [""], key, self.settings.attempts, sentence=False)[0]

    @torch.no_grad()
    def _continue(
        self,
        start: Sequence[int],
        shown: dict[str, Tensor],
        before: Sequence[str],
        key: str,
        attempt: int,
        sentence: bool,
    ) -> list[str]:
        """Return what the model says after each beginning of an answer, up to the end of a sentence or of the text."""
        network, tokenizer, text = self.family.network, self.family.tokenizer, self.settings.text
        rows = [[*start, *tokenizer(one, add_special_tokens=False)["input_ids"]] if one else [*start] for one in before]
        width = max(map(len, rows))
        if self.family.context is not None and width + text.max_new_tokens > self.family.context:
            raise DataError(
                f"{width} tokens of prompt and answer with {text.max_new_tokens} new ones are more than the"
                f" {self.family.context} that the model reads"
            )
        ids, there = torch.full((len(rows), width), self.pad), torch.zeros(len(rows), width, dtype=torch.int64)
        visible = there.clone()
        hidden = hidden_tokens(
            torch.tensor(start), self.image_token, self.settings.threshold, self.random, key, attempt
        )
        for number, row in enumerate(rows):
            place = width - len(row)
            ids[number, place:], there[number, place:] = torch.tensor(row), 1
            visible[number, place:] = 1
            visible[number, place : place + len(start)] = (~hidden).long()
        device = next(network.parameters()).device
        seeds = [hash_key(self.random.seed, "tails", key, attempt, number) for number in range(len(rows))]
        told = {name: tensor.repeat(len(rows), *[1] * (tensor.dim() - 1)) for name, tensor in shown.items()}
        with plain_generation(network):
            found = network.generate(
                input_ids=ids.to(device),
                attention_mask=visible.to(device),
                position_ids=(there.cumsum(dim=1) - 1).clamp(min=0).to(device),  # what is hidden keeps its place
                max_new_tokens=text.max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad,
                eos_token_id=self.ends,
                logits_processor=[KeyedDraw(seeds, width, text)],
                stopping_criteria=[_SentenceEnd(tokenizer, width)] if sentence else [],
                **{
                    name: t.to(device, network.dtype) if t.is_floating_point() else t.to(device)
                    for name, t in told.items()
                },
            )
        said = [self._new(row, new) for row, new in zip(rows, found[:, width:].tolist(), strict=True)]
        return [_first_sentence(one) for one in said] if sentence else said

    def _new(self, row: Sequence[int], new: Sequence[int]) -> str:
        """Return the text of new tokens; some tokenizers drop the space before a text, so it is read with the last."""
        end = next((place for place, token in enumerate(new) if token in self.ends), len(new))
        read, last = self.family.tokenizer.decode, [*row[-1:]]
        return read([*last, *new[:end]], skip_special_tokens=True)[len(read(last, skip_special_tokens=True)) :]


class _SentenceEnd:
    """Stops each row at the end of a sentence."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        said = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor([any(end in one for end in ENDS) for one in said], device=input_ids.device)


def _first_sentence(text: str) -> str:
    return text[: next((place + 1 for place, letter in enumerate(text) if letter in ENDS), len(text))]

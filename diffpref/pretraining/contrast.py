"""What the scorers learn from: pictures with their caption and with hard negatives, captions that are almost right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpref.core.randomness import Random
from diffpref.pretraining.scenes import scene_batch
from diffpref.shapes.grammar import COLOURS, RELATIONS, SHAPES, Caption

__all__ = ["Contrast", "Pools", "contrast_batch", "contrastive_loss", "hard_negatives"]

NUM_NEGATIVES = 6


@dataclass(frozen=True)
class Pools:
    """Captions to render, and pictures that a pipeline drew with what the oracle reads in them."""

    captions: Sequence[Caption]
    pictures: np.ndarray = field(default_factory=lambda: np.empty((0, 64, 64, 3), np.uint8))  # (N, 64, 64, 3)
    readings: Sequence[Caption] = ()


@dataclass(frozen=True)
class Contrast:
    """N pictures (N, 64, 64, 3) uint8; for each its caption, then `NUM_NEGATIVES` wrong ones, picture by picture."""

    pictures: np.ndarray
    sentences: list[str]


def hard_negatives(caption: Caption, random: np.random.Generator) -> list[Caption]:
    """Return six captions that differ from the right one in a swap or in one word."""
    first, second = caption.first, caption.second

    def other(words: Sequence[str], word: str) -> str:
        return str(random.choice([w for w in words if w != word]))

    colours, shapes = list(COLOURS), list(SHAPES)
    swapped_colours = replace(
        caption, first=replace(first, colour=second.colour), second=replace(second, colour=first.colour)
    )
    swapped_shapes = replace(
        caption, first=replace(first, shape=second.shape), second=replace(second, shape=first.shape)
    )
    return [
        swapped_colours if swapped_colours != caption else replace(caption, first=second, second=first),
        swapped_shapes if swapped_shapes != caption else replace(caption, first=second, second=first),
        replace(caption, relation=other(RELATIONS, caption.relation)),
        replace(caption, first=replace(first, shape=other(shapes, first.shape))),
        replace(caption, second=replace(second, shape=other(shapes, second.shape))),
        replace(caption, second=replace(second, colour=other(colours, second.colour)))
        if random.random() < 0.5
        else replace(caption, first=replace(first, colour=other(colours, first.colour))),
    ]


def contrast_batch(pools: Pools, size: int, random: Random, *key: int) -> Contrast:
    """Draw pictures, a third of them from a pipeline where there are any, with true captions and hard negatives."""
    generator = random.numpy("contrast", *key)
    num_drawn = size // 3 if len(pools.readings) else 0
    shown, pictures = scene_batch(pools.captions, size - num_drawn, random, "contrast scenes", *key)
    if num_drawn:
        rows = generator.integers(len(pools.readings), size=num_drawn)
        shown = [*shown, *(pools.readings[row] for row in rows)]
        pictures = np.concatenate([pictures, pools.pictures[rows]])
    sentences = [str(c) for caption in shown for c in (caption, *hard_negatives(caption, generator))]
    return Contrast(pictures, sentences)


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss over the batch plus the cross-entropy of each picture over its own captions.

    Args:
        images: (N, D) embeddings.
        texts: (N * (1 + negatives), D) embeddings, picture by picture, the true caption first.
        logit_scale: () log of the inverse temperature.

    Returns:
        the loss, and the share of pictures whose true caption beats all its hard negatives.
    """
    images, texts = functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)
    own = texts.view(len(images), -1, texts.shape[-1])
    scale, labels = logit_scale.exp(), torch.arange(len(images))
    across = scale * images @ own[:, 0].T
    hard = scale * torch.einsum("nd,nkd->nk", images, own)
    loss = (functional.cross_entropy(across, labels) + functional.cross_entropy(across.T, labels)) / 2
    loss = loss + functional.cross_entropy(hard, torch.zeros_like(labels))
    return loss, (hard.argmax(1) == 0).float().mean()


def clamp_scale(logit_scale: nn.Parameter) -> None:
    """Keep the temperature in CLIP's range, [1/100, 1]."""
    with torch.no_grad():
        logit_scale.clamp_(0, float(np.log(100)))

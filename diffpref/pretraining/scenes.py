"""Batches of true scenes as tensors, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffpref.core.randomness import Random
from diffpref.shapes.grammar import Caption
from diffpref.shapes.render import render

__all__ = ["scene_batch", "to_pictures", "to_tensor"]


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turn (N, H, W, 3) uint8 into (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_pictures(images: Tensor) -> np.ndarray:
    """Turn (N, 3, H, W) in [-1, 1] into (N, H, W, 3) uint8."""
    rounded = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).cpu().numpy()


def scene_batch(
    captions: Sequence[Caption], size: int, random: Random, stream: str, *key: int
) -> tuple[list[Caption], np.ndarray]:
    """Draw captions with replacement and render each: a list of N captions and (N, 64, 64, 3) uint8."""
    generator = random.numpy(stream, *key)
    chosen = [captions[i] for i in generator.integers(len(captions), size=size)]
    return chosen, np.stack([render(caption, generator) for caption in chosen])

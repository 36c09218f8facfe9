"""Videos and sounds as values: samples with the rate at which they were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Clip", "Media", "Sound"]

Media: TypeAlias = Any
"""What is scored or shown. An image: a PIL image, a uint8 (H, W, 3) array or a float (3, H, W) tensor in [0, 1]. A
video: a `Clip`, uint8 (F, H, W, 3) array, float (F, 3, H, W) tensor in [0, 1], a list of images. A `Sound`, a text."""


@dataclass(frozen=True)
class Clip:
    """A video.

    Args:
        frames: (F, H, W, 3) uint8 array, or another form that `Media` allows for videos.
        fps: frames a second; None where nobody said.
    """

    frames: Any
    fps: float | None = None


@dataclass(frozen=True)
class Sound:
    """A recording.

    Args:
        samples: (T,) or (channels, T) floats in [-1, 1].
        rate: samples a second.
    """

    samples: Any
    rate: int

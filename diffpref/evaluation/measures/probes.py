"""What a picture looks like to somebody who does not look: probes that move when a model hacks its reward.

A model that pleases a scorer with glaring colours clips pixels; one that pleases it with detail sharpens and fattens
the file. None of these is good or bad by itself: what counts is how far an aligned model moves them from its base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from diffpref.core.errors import ConfigError, suggest
from diffpref.core.media import Media
from diffpref.data import to_uint8
from diffpref.rewards.jpeg import kilobytes

__all__ = ["PROBES", "clipped_share", "colour_saturation", "jpeg_kilobytes", "probe_pictures", "sharpness"]

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as in JPEG


def clipped_share(picture: Media, margin: int = 2) -> float:
    """Return the share, 0..1, of pixels of which a channel is at an end of its range: <= margin or >= 255 - margin."""
    pixels = to_uint8(picture)
    return float(((pixels <= margin) | (pixels >= 255 - margin)).any(axis=2).mean())


def colour_saturation(picture: Media) -> float:
    """Return the mean saturation, 0..1, of HSV: (max - min) / max of the channels, 0 for black."""
    pixels = to_uint8(picture).astype(np.float64)
    top = pixels.max(axis=2)
    return float(((top - pixels.min(axis=2)) / np.where(top > 0, top, 1)).mean())


def sharpness(picture: Media) -> float:
    """Return the variance of the Laplacian of luma (0..255) by its four neighbours, without the border.

    It grows with detail and with noise, and with smaller pictures of the same scene: compare equal sizes only. 0 for
    pictures of fewer than three pixels a side.
    """
    luma = to_uint8(picture).astype(np.float64) @ np.array(LUMA)
    if min(luma.shape) < 3:
        return 0.0
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var())


def jpeg_kilobytes(picture: Media) -> float:
    """Return the size as JPEG, as the reward ``jpeg`` takes it; the exact number depends on Pillow's libjpeg."""
    return kilobytes(Image.fromarray(to_uint8(picture)))


PROBES: Mapping[str, Callable[[Media], float]] = {
    "clipped_share": clipped_share,
    "colour_saturation": colour_saturation,
    "sharpness": sharpness,
    "jpeg_kilobytes": jpeg_kilobytes,
}
"""Name -> probe of one picture."""


def probe_pictures(pictures: Sequence[Media], names: Sequence[str] = tuple(PROBES)) -> dict[str, np.ndarray]:
    """Return name -> (N,) float64, a probe's values of N pictures, in their order.

    Raises:
        ConfigError: an unknown probe.
        DataError: an item is no picture.
    """
    for name in names:
        if name not in PROBES:
            raise ConfigError(f"unknown probe '{name}'{suggest(name, PROBES) or ';'} known: {', '.join(PROBES)}")
    return {name: np.array([PROBES[name](picture) for picture in pictures], dtype=np.float64) for name in names}

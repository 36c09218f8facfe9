"""Altered pictures: pure functions of pixels and a keyed draw, for methods that compare what a model saw.

Pixels are (..., C, H, W) of one record: a picture, several of them, frames of a clip, or a picture in parts. All
are altered alike. What an alteration fills in is the picture's own mean, a colour a channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError
from diffpref.models.pictures import VISION

__all__ = ["ALTERATIONS", "Alteration", "alter", "corrupt", "pixel_tensors", "replace_pixels"]

Alteration: TypeAlias = Literal["crop", "shift", "mask", "shuffle", "reverse", "frames"]
Draw: TypeAlias = np.random.Generator
PIXELS = f"{VISION}pixel_values"
CHANNELS = (1, 3, 4)
CELLS, TILES = 8, 4
"""Cells a side of what `mask` hides, tiles a side of what `shuffle` moves."""


def pixel_tensors(conditioning: Conditioning, method: str) -> dict[str, Tensor]:
    """Return the tensors of pixels among what a model is told: (B, pictures, ..., C, H, W) each.

    Args:
        conditioning: of B rows.
        method: who asks, for the message.

    Raises:
        ConfigError: there are no pictures, or the processor hands on patches in a row, which have no height and width.
    """
    found = {name: tensor for name, tensor in conditioning.tensors.items() if name.startswith(PIXELS)}
    if not found:
        raise ConfigError(
            f"method: {method} alters what the model sees, and it is shown nothing; take model.family vlm and data with"
            " a column of images"
        )
    for name, tensor in found.items():
        shape = tuple(tensor.shape)
        if len(shape) < 5 or shape[-3] not in CHANNELS or min(shape[-2:]) < 2:
            raise ConfigError(
                f"method: {method} alters pictures as channels x height x width, and this processor makes"
                f" {name.removeprefix(VISION)} of shape {shape[1:]} a record, patches in a row; take a model whose"
                " processor keeps pictures whole (of the LLaVA kind)"
            )
    return found


def replace_pixels(conditioning: Conditioning, method: str, change: Callable[[Tensor, int], Tensor]) -> Conditioning:
    """Return the same rows with other pixels.

    Args:
        conditioning: of B rows.
        method: for messages.
        change: (pictures, ..., C, H, W) of a row, and its number, to pixels of the same shape.
    """
    pixels = pixel_tensors(conditioning, method)
    return conditioning.replace(
        {name: torch.stack([change(row, number) for number, row in enumerate(t)]) for name, t in pixels.items()}
    )


def corrupt(pixels: Tensor, share: float, draw: Draw, block: int = 1) -> Tensor:
    """Replace a random share of the pixels of each picture by the picture's mean, one number for all channels.

    Args:
        pixels: (..., C, H, W).
        share: of the places, 0 to 1; the number of places is rounded down.
        draw: keyed.
        block: side of the squares that are replaced, in pixels.

    Source: zhyang2226/OPA-DPO ``dpo_trainer.py: mask_single_image``.
    """
    height, width = pixels.shape[-2:]
    rows, columns = -(-height // block), -(-width // block)
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    hidden = np.zeros((len(flat), rows * columns), bool)
    for one in hidden:
        one[draw.permutation(rows * columns)[: int(share * rows * columns)]] = True
    squares = torch.from_numpy(hidden).view(-1, 1, rows, columns).to(pixels.device)
    places = squares.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :height, :width]
    return torch.where(places, flat.mean(dim=(-3, -2, -1), keepdim=True), flat).view_as(pixels)


def crop(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Show a window without a share of the area, as large as the whole was."""
    height, width = pixels.shape[-2:]
    tall, wide = (max(1, round(side * math.sqrt(1 - strength))) for side in (height, width))
    top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
    window = pixels[..., top : top + tall, left : left + wide].reshape(-1, pixels.shape[-3], tall, wide)
    return interpolate(window, (height, width), mode="bilinear", align_corners=False).view_as(pixels)


def shift(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Move everything by a share of the sides, in a random one of eight directions; what comes in is the mean."""
    height, width = pixels.shape[-2:]
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    down, right = steps[int(draw.integers(len(steps)))]
    by = (down * max(1, round(strength * height)), right * max(1, round(strength * width)))
    moved = torch.roll(pixels, by, dims=(-2, -1))
    y, x = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    inside = ((y - by[0] >= 0) & (y - by[0] < height))[:, None] & ((x - by[1] >= 0) & (x - by[1] < width))[None]
    return torch.where(inside, moved, _mean(pixels))


def mask(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Hide a share of the squares of a grid, the same ones in all pictures."""
    height, width = pixels.shape[-2:]
    rows, columns = min(CELLS, height), min(CELLS, width)
    hidden = torch.zeros(rows * columns, dtype=torch.bool)
    hidden[torch.from_numpy(draw.permutation(rows * columns)[: max(1, round(strength * rows * columns))])] = True
    y, x = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    places = hidden.view(rows, columns)[y][:, x].to(pixels.device)
    return torch.where(places, _mean(pixels), pixels)


def shuffle(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Let a share of the tiles of a grid change places, each with another one; at least two do."""
    height, width = pixels.shape[-2:]
    rows, columns = min(TILES, height), min(TILES, width)
    tall, wide = height // rows, width // columns
    count = max(2, round(strength * rows * columns))
    moving = [(int(n) // columns * tall, int(n) % columns * wide) for n in draw.permutation(rows * columns)[:count]]
    made = pixels.clone()
    for (top, left), (from_top, from_left) in zip(moving, [*moving[1:], moving[0]], strict=True):
        tile = pixels[..., from_top : from_top + tall, from_left : from_left + wide]
        made[..., top : top + tall, left : left + wide] = tile
    return made


def reverse(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Show the frames of a clip backwards."""
    return pixels.flip(0)


def frames(pixels: Tensor, strength: float, draw: Draw) -> Tensor:
    """Show a part of a clip without a share of its frames, as long as the whole was."""
    count = len(pixels)
    kept = min(max(1, round(count * (1 - strength))), count - 1)
    start = int(draw.integers(count - kept + 1))
    return pixels[start + torch.arange(count, device=pixels.device) * kept // count]


ALTERATIONS: Mapping[str, Callable[[Tensor, float, Draw], Tensor]] = MappingProxyType(
    {"crop": crop, "shift": shift, "mask": mask, "shuffle": shuffle, "reverse": reverse, "frames": frames}
)
OF_CLIPS = ("reverse", "frames")
"""Alterations of the order of pictures."""


def alter(pixels: Tensor, kinds: Sequence[str], strength: float, draw: Draw) -> Tensor:
    """Alter the pictures of a record in one of some ways.

    Args:
        pixels: (pictures, ..., C, H, W).
        kinds: names of `ALTERATIONS`, of which one is drawn.
        strength: share of the picture that is lost or moved, 0 to 1.
        draw: keyed.

    Raises:
        ConfigError: the order of a single picture was to be altered.
    """
    kind = kinds[int(draw.integers(len(kinds)))]
    if kind in OF_CLIPS and len(pixels) < 2:
        raise ConfigError(
            f"method.alterations: '{kind}' alters the order of several pictures or frames, and a record has one; leave"
            " it out"
        )
    return ALTERATIONS[kind](pixels, strength, draw)


def _mean(pixels: Tensor) -> Tensor:
    return pixels.mean(dim=(-2, -1), keepdim=True)

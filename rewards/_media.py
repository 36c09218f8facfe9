"""Items as a reward wants them, refused with their number where they are of another kind.

Each function takes the reward's name for its messages and N items of the kinds that `diffpref.core.media.Media` lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffpref.core.errors import DataError, ShapeError
from diffpref.core.media import Clip, Media, Sound
from diffpref.data import to_uint8

__all__ = ["as_clips", "as_pictures", "as_sounds", "as_texts", "check_lengths", "is_clip"]


def check_lengths(
    owner: str, media: Sized, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Stop where there is not one prompt, and one entry of metadata if there is any, for each item.

    Raises:
        ShapeError: naming both numbers.
    """
    if len(media) != len(prompts):
        raise ShapeError(f"reward '{owner}': {len(media)} items but {len(prompts)} prompts; give one prompt for each")
    if metadata is not None and len(metadata) != len(media):
        raise ShapeError(f"reward '{owner}': {len(media)} items but metadata of {len(metadata)}; give one for each")


def _kind(item: Media) -> str:
    """Return what an item seems to be."""
    if isinstance(item, str):
        return "a text"
    if isinstance(item, Sound):
        return "a sound"
    if isinstance(item, Clip) or (isinstance(item, list | tuple) and item) or getattr(item, "ndim", 0) == 4:
        return "a video"
    return "an image" if isinstance(item, Image.Image) or getattr(item, "ndim", 0) == 3 else type(item).__name__


def is_clip(item: Media) -> bool:
    """Whether an item is a video, valid or not."""
    return _kind(item) == "a video"


def _refuse(owner: str, wanted: str, number: int, item: Media, hint: str = "") -> DataError:
    return DataError(f"reward '{owner}' scores {wanted}, item {number} is {_kind(item)}{hint}")


def as_pictures(owner: str, media: Sequence[Media], first: int = 0) -> list[Image.Image]:
    """Return RGB pictures; ``first`` is the number of the first item, for messages.

    Raises:
        DataError: an item is a video, a sound, a text or no valid image; the message has its number.
    """
    pictures = []
    for number, item in enumerate(media, first):
        if _kind(item) == "a video":
            hint = f"; score its frames with {{frame_mean: {{reward: {owner}}}}}"
            raise _refuse(owner, "images", number, item, hint)
        if isinstance(item, str | Sound):
            raise _refuse(owner, "images", number, item)
        try:
            pictures.append(Image.fromarray(to_uint8(item)))
        except DataError as error:
            raise DataError(f"reward '{owner}', item {number}: {error}") from error
    return pictures


def _frames(item: Media) -> np.ndarray:
    if isinstance(item, torch.Tensor):
        item = list(item)
    if isinstance(item, list | tuple):
        item = np.stack([to_uint8(frame) for frame in item])
    if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.ndim != 4 or item.shape[3] != 3:
        found = f"{item.shape} {item.dtype}" if isinstance(item, np.ndarray) else type(item).__name__
        raise DataError(f"a video must be (F, H, W, 3) uint8, got {found}")
    if not len(item):
        raise DataError("a video of no frames")
    return item


def as_clips(owner: str, media: Sequence[Media], first: int = 0) -> list[Clip]:
    """Return videos whose ``frames`` are (F, H, W, 3) uint8 arrays; ``fps`` stays as it is told.

    ``first`` is the number of the first item, for messages.

    Raises:
        DataError: an item is an image, a sound, a text, or a video without frames; the message has its number.
    """
    clips = []
    for number, item in enumerate(media, first):
        clip = item if isinstance(item, Clip) else Clip(item)
        if _kind(item) != "a video":
            raise _refuse(owner, "videos", number, item)
        try:
            clips.append(Clip(_frames(clip.frames), clip.fps))
        except (DataError, ValueError) as error:
            raise DataError(f"reward '{owner}', item {number}: {error}") from error
    return clips


def as_sounds(owner: str, media: Sequence[Media]) -> list[Sound]:
    """Return sounds whose ``samples`` are (T,) float32 arrays: channels are averaged.

    Raises:
        DataError: an item is no `Sound`, or one that is empty, not finite or beyond [-1, 1].
    """
    sounds = []
    for number, item in enumerate(media):
        if not isinstance(item, Sound):
            raise _refuse(owner, "sounds", number, item, "; wrap samples and rate: Sound(samples, rate)")
        samples = np.asarray(item.samples, dtype=np.float32)
        samples = samples.mean(axis=0) if samples.ndim == 2 else samples
        if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all() or np.abs(samples).max() > 1.001:
            raise DataError(
                f"reward '{owner}', item {number}: a sound is (T,) or (channels, T) finite samples in [-1, 1],"
                f" got {np.shape(item.samples)}"
            )
        if item.rate <= 0:
            raise DataError(f"reward '{owner}', item {number}: a sound's rate must be positive, got {item.rate}")
        sounds.append(Sound(samples, item.rate))
    return sounds


def as_texts(owner: str, media: Sequence[Media]) -> list[str]:
    """Return texts.

    Raises:
        DataError: an item is no text; the message has its number.
    """
    for number, item in enumerate(media):
        if not isinstance(item, str):
            raise _refuse(owner, "texts", number, item)
    return list(media)

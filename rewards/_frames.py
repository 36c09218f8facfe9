"""Frames of videos: which a reward looks at, by the rules of those who published it, and the pixels of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diffpref.core.errors import DataError
from diffpref.core.media import Clip, Media
from diffpref.rewards._media import as_clips

__all__ = ["at_most", "at_rate", "evenly", "middles", "moving_pixels", "thinned"]

MIN_FRAMES = 4
MAX_FRAMES = 768
PAIR = 2
"""Qwen2-VL reads two frames as one."""


def middles(total: int, count: int) -> list[int]:
    """Return the frames in the middle of ``count`` equal parts of a video; all of them where it has no more.

    >>> middles(9, 3)
    [1, 4, 7]
    """
    if total <= count:
        return list(range(total))
    return [int((part + 0.5) * total / count) for part in range(count)]


def at_most(total: int, count: int) -> list[int]:
    """Return VideoScore's frames: ``arange(0, total, total / count)`` cut to whole numbers; all where it has no more.

    >>> at_most(10, 4)
    [0, 2, 5, 7]
    """
    if total <= count:
        return list(range(total))
    # a quotient that is rounded down would add one more at the end
    return [int(place) for place in np.arange(0, total, total / count)][:count]


def thinned(total: int, fps: float | None, rate: float) -> list[int]:
    """Return the frames of a video that is shown at a lower rate; all of them where it is no faster, or tells no speed.

    >>> thinned(9, 24.0, 8.0)
    [0, 3, 6]
    """
    if fps is None or fps <= rate:
        return list(range(total))
    return [place for number in range(total) if (place := int(number * fps / rate + 1e-6)) < total]


def at_rate(owner: str, number: int, clip: Clip, rate: float) -> list[int]:
    """Return VideoAlign's frames: so many a second, from the first to the last, an even number of them, 4 to 768.

    Args:
        owner: the reward, for messages.
        number: of the item, for messages.
        clip: the video; its ``fps`` must be known.
        rate: frames a second that are wanted.

    Raises:
        DataError: nobody said how fast the video runs, or it has one frame only.
    """
    if clip.fps is None or not 0 < clip.fps < float("inf"):
        raise DataError(
            f"reward '{owner}' takes {rate:g} frames a second, item {number} has fps {clip.fps}; give Clip(frames, fps)"
        )
    return evenly(owner, number, clip, min(max(len(clip.frames) / clip.fps * rate, MIN_FRAMES), MAX_FRAMES))


def evenly(owner: str, number: int, clip: Clip, count: float) -> list[int]:
    """Return frames from the first to the last, the even number next to ``count``, no more than there are.

    Args:
        owner: the reward, for messages.
        number: of the item, for messages.
        clip: the video.
        count: how many are wanted.

    Raises:
        DataError: a video of one frame.
    """
    total = len(clip.frames)
    if total < PAIR:
        raise DataError(f"reward '{owner}', item {number}: a video of one frame; it needs {PAIR} or more")
    wanted = round(min(count, total // PAIR * PAIR) / PAIR) * PAIR
    return [int(place) for place in np.linspace(0, total - 1, wanted).round()]


def moving_pixels(owner: str, media: Sequence[Media]) -> Iterator[Tensor]:
    """Yield the (F, 3, H, W) float32 pixels in [0, 1] of each video; one at a time, for they are large.

    Raises:
        DataError: an item is no video, or one of a single frame, in which nothing can move.
    """
    for number, clip in enumerate(as_clips(owner, media)):
        if len(clip.frames) < 2:
            raise DataError(f"reward '{owner}', item {number}: a video of one frame, in which nothing moves")
        yield torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255

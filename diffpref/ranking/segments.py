"""Labels of a video's segments, brought to its latent frames (DenseDPO, arXiv:2506.03517)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from diffpref.core.errors import ConfigError

__all__ = ["agreed_label", "latent_segments", "whole_label"]


def latent_segments(
    num_frames: int, *, fps: float, seconds: float = 1.0, temporal_factor: int = 4, causal: bool = True
) -> list[int]:
    """Return for each latent frame the segment that holds most of its pixel frames, the earlier one of two.

    Args:
        num_frames: of the video.
        fps: frames a second.
        seconds: length of a segment. A last one shorter than half of it is merged into the one before.
        temporal_factor: pixel frames a latent frame.
        causal: the first latent frame holds one pixel frame, as in causal VAEs.

    Raises:
        ConfigError: segments shorter than a frame.

    >>> latent_segments(9, fps=4, temporal_factor=4)
    [0, 0, 1]
    """
    length = fps * seconds
    if length < 1:
        raise ConfigError(f"segments: {seconds} s at {fps} frames a second hold no frame; take longer ones")
    segments = [int(frame / length) for frame in range(num_frames)]
    if 0 < segments[-1] and segments.count(segments[-1]) < length / 2:
        segments = [min(segment, segments[-1] - 1) for segment in segments]
    starts = list(range(1, num_frames, temporal_factor)) if causal else list(range(0, num_frames, temporal_factor))
    held = [segments[start : start + temporal_factor] for start in starts]
    held = [segments[:1], *held] if causal else held
    return [min(Counter(frames).items(), key=lambda item: (-item[1], item[0]))[0] for frames in held]


def agreed_label(asked: int, swapped: int) -> int:
    """Return the label of two samples that were shown in both orders, 0 where the answers contradict each other.

    Args:
        asked: 1 for the first shown, -1 for the second, 0 for a tie.
        swapped: the same when the two had changed places.

    >>> agreed_label(1, -1), agreed_label(1, 1)
    (1, 0)
    """
    return asked if asked == -swapped else 0


def whole_label(labels: Sequence[int]) -> int:
    """Return the majority of a video's segments: 1, -1, or 0 where the two sides are equally many.

    >>> whole_label([1, 0, 0, -1, 1])
    1
    """
    total = sum(labels)
    return (total > 0) - (total < 0)

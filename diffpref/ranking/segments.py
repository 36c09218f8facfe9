"""Labels of a video's segments, brought to its latent frames (DenseDPO, arXiv:2506.03517)."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref.core.errors import ConfigError

__all__ = ["agreed_label", "equal_parts", "held_most", "latent_segments", "parts_of", "whole_label"]

SLACK = 1e-6
"""Frames: 0.7 seconds at 30 frames a second are 21, not 20.999999999999996."""


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
    segments = _segments(num_frames, fps, seconds)
    return held_most(segments, temporal_factor=temporal_factor, causal=causal)


def equal_parts(num_frames: int, *, fps: float, seconds: float = 1.0) -> list[tuple[int, int]]:
    """Return the first frame of each segment of a video and the one after its last.

    Args:
        num_frames: of the video.
        fps: frames a second.
        seconds: length of a segment. A last one shorter than half of it is merged into the one before.

    Raises:
        ConfigError: segments shorter than a frame.

    >>> equal_parts(9, fps=4)
    [(0, 4), (4, 9)]
    """
    segments = _segments(num_frames, fps, seconds)
    starts = [frame for frame in range(num_frames) if frame == 0 or segments[frame] != segments[frame - 1]]
    return list(zip(starts, [*starts[1:], num_frames], strict=True))


def _segments(num_frames: int, fps: float, seconds: float) -> list[int]:
    """Return the segment of each frame."""
    length = fps * seconds
    if length < 1:
        raise ConfigError(f"segments: {seconds:g} s at {fps:g} frames a second hold no frame; take longer ones")
    segments = [int((frame + SLACK) / length) for frame in range(num_frames)]
    if 0 < segments[-1] and segments.count(segments[-1]) < length / 2:
        segments = [min(segment, segments[-1] - 1) for segment in segments]
    return segments


def held_most(segments: Sequence[int], *, temporal_factor: int, causal: bool) -> list[int]:
    """Return for each latent frame the segment of most of its pixel frames, the one that comes first of two.

    Args:
        segments: of each pixel frame.
        temporal_factor: pixel frames a latent frame.
        causal: the first latent frame holds one pixel frame, as in causal VAEs.

    >>> held_most([0, 0, 0, 1, 1], temporal_factor=2, causal=True)
    [0, 0, 1]
    """
    first = int(causal)
    starts = range(first, len(segments), temporal_factor)
    held = [segments[:first]] * first + [segments[start : start + temporal_factor] for start in starts]
    return [max(frames, key=list(frames).count) for frames in held]


def parts_of(frames: Sequence[int], fps: float, parts: Sequence[tuple[float, float]]) -> list[int]:
    """Return for each frame that is shown of a clip the part that holds it, -1 where none does.

    Frame k is taken at k / fps seconds; a part holds its start and not its end.

    Args:
        frames: positions in the clip, whatever was cut out of it.
        fps: frames a second of the clip.
        parts: start and end in seconds; of two that overlap the earlier in the list.

    >>> parts_of([2, 3, 4, 8], fps=4.0, parts=[(0.0, 1.0), (1.0, 2.0)])
    [0, 0, 1, -1]
    """
    within = [[start * fps - SLACK <= frame < end * fps - SLACK for start, end in parts] for frame in frames]
    return [row.index(True) if True in row else -1 for row in within]


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

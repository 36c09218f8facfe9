"""Probes of clips: those of pictures, frame by frame, and what no single frame shows: motion, and how steady it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from diffpref.core.media import Clip, Media
from diffpref.evaluation.measures.probes import clipped_share, colour_saturation, sharpness
from diffpref.rewards.flicker import Flicker
from diffpref.rewards.motion import Motion
from diffpref.rewards.oracle import MEASURED, Oracle

__all__ = ["CLIP_PROBES", "MOTION_PROBES"]


def _mean(probe: Callable[[Media], float], clip: Clip) -> float:
    """Return the mean of a probe of pictures over the frames of a clip."""
    return sum(map(probe, clip.frames)) / len(clip.frames)


def _motion(clip: Clip) -> float:
    return Motion().score([clip], [""]).item()


def _steadiness(clip: Clip) -> float:
    return Flicker().score([clip], [""]).item()


def _watched(name: str, clip: Clip) -> float:
    return Oracle.watched(clip)[name]


CLIP_PROBES: Mapping[str, Callable[[Clip], float]] = {
    "motion": _motion,
    "steadiness": _steadiness,
    "clipped_share": partial(_mean, clipped_share),
    "colour_saturation": partial(_mean, colour_saturation),
    "sharpness": partial(_mean, sharpness),
}
"""Name -> probe of a clip. Motion and steadiness are the rewards ``motion`` and ``flicker``; the more moves, the less
steady a clip is."""

MOTION_PROBES: Mapping[str, Callable[[Clip], float]] = {name: partial(_watched, name) for name in MEASURED}
"""What the oracle of the moving shapes measures besides facts: pixels that the object goes from frame to frame, and 1
minus how much the colours of object and background change meanwhile."""

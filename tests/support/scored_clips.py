"""Clips of noise with scores, and pictures for families that animate them: what methods train on at toy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffpref.core.contracts import Candidate, PromptMedia, Record, Score
from diffpref.data import encode_png, write_store
from diffpref.data.footage import pack_frames

__all__ = ["FRAMES", "write_scored_clips"]

FRAMES = 3


def write_scored_clips(folder: Path) -> Path:
    """Write 6 captions and pictures to animate with three clips each, at 4 frames a second, scored by a number."""

    def clip(number: int) -> Candidate:
        pixels = np.random.default_rng(number).integers(0, 256, (FRAMES, 32, 32, 3), dtype=np.uint8)
        frames = pack_frames([("png", encode_png(frame)) for frame in pixels], 4.0)
        return Candidate(bytes=frames, scores=(Score("oracle", "1", float(number * 7 % 5)),))

    def picture(number: int) -> PromptMedia:
        pixels = np.random.default_rng(100 + number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return PromptMedia(bytes=encode_png(pixels))

    clips = [tuple(clip(3 * i + k) for k in range(3)) for i in range(6)]
    write_store(folder, [Record(f"r{i}", f"clip {i}", own, inputs=(picture(i),)) for i, own in enumerate(clips)])
    return folder

"""Clips as files: every frame comes back, at its speed, and what cannot be kept is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.core.media import Clip
from diffpref.data.clips import encode_clip, read_clip, read_media

NOISE = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
CLIPS = {
    "noise": NOISE,
    "nothing moves": np.repeat(NOISE[:1], 6, axis=0),
    "it rests and moves": NOISE[[0, 0, 1, 1, 1, 0]],
    "all black": np.zeros((3, 1, 1, 3), np.uint8),
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("fps", [8, 24, 29.97, 430, 500])
def test_every_frame_comes_back_at_its_speed(name: str, fps: float) -> None:
    content = encode_clip(Clip(CLIPS[name], fps))
    back = read_clip(Candidate(bytes=content))
    assert np.array_equal(back.frames, CLIPS[name])
    assert back.fps is not None and len(CLIPS[name]) / back.fps == pytest.approx(len(CLIPS[name]) / fps, abs=5.1e-4)
    assert isinstance(read_media(Candidate(bytes=content), name="x"), Clip)
    assert content == encode_clip(Clip(CLIPS[name].copy(), fps))
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.n_frames, image.is_animated) == ("WEBP", len(CLIPS[name]), True)  # type: ignore[attr-defined]


def test_eight_frames_a_second_are_told_exactly() -> None:
    assert read_clip(Candidate(bytes=encode_clip(Clip(NOISE, 8)))).fps == 8


@pytest.mark.parametrize(
    ("frames", "fps", "said"),
    [
        (NOISE, None, "a clip needs its frames a second, at most 500, to be kept; got None"),
        (NOISE, 0, "got 0; give Clip"),
        (NOISE, float("nan"), "got nan"),
        (NOISE, 700, "got 700"),
        (NOISE[0], 8, r"made of \(F, H, W, 3\) uint8 frames, got \(12, 10, 3\) uint8"),
        (NOISE / 255, 8, "got .* float64"),
        (NOISE[:0], 8, r"got \(0, 12"),
        (np.zeros((1, 1, 2**14, 3), np.uint8), 8, "16384 x 1 pixels: a side may have 16,383 at most"),
    ],
)
def test_what_cannot_be_kept_is_refused(frames: Any, fps: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        encode_clip(Clip(frames, fps))
    assert "\n" not in str(error.value)

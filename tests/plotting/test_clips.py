"""Strips show frames in their order, sheets put clips under captions, and what moves keeps frames and speed."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image, ImageSequence

from diffpref.core.errors import DataError
from diffpref.core.media import Clip
from diffpref.plotting.clips import Strip, encode_gif, encode_mp4, frames_to_show, strip, strip_sheet


def clip(reds: list[int], size: int = 16, fps: float | None = 8) -> Clip:
    frames = np.zeros((len(reds), size, size, 3), np.uint8)
    frames[..., 0] = np.array(reds, np.uint8)[:, None, None]
    return Clip(frames, fps)


def test_a_strip_shows_the_first_frame_left_and_the_last_right() -> None:
    reds = [20 * k for k in range(1, 11)]
    shown = np.asarray(strip(clip(reds), count=4, side=32))
    assert shown.shape == (32, 4 * 32 + 3 * 2, 3)  # 16 pixels enlarged twice, and seams
    assert [int(shown[16, 34 * k + 16, 0]) for k in range(4)] == [20, 80, 140, 200]
    assert np.asarray(strip(clip(reds[:2]), count=4, side=32)).shape == (32, 66, 3)


def test_fewer_frames_take_the_same_time() -> None:
    fewer = frames_to_show(clip(list(range(40))), 10)
    assert (len(fewer.frames), fewer.fps) == (10, 2) and fewer.frames[:, 0, 0, 0].tolist()[::9] == [0, 39]
    assert frames_to_show(clip([1, 2], fps=None)).fps is None


def test_a_sheet_puts_a_line_a_clip_under_its_caption() -> None:
    rows = [("one", [Strip("a", clip([200])), Strip("b", clip([150]))]), ("two", [Strip("a", clip([100]))])]
    sheet = np.asarray(strip_sheet(rows, side=32))
    places = {red: np.argwhere((sheet == (red, 0, 0)).all(-1)) for red in (200, 150, 100)}
    tops = {red: tuple(found.min(0)) for red, found in places.items()}
    assert tops[200][0] < tops[150][0] < tops[100][0] and tops[200][1] == tops[150][1] == tops[100][1]
    assert all(len(found) == 32 * 32 for found in places.values())


def test_a_sheet_of_nothing_and_of_clips_that_differ_is_refused() -> None:
    with pytest.raises(DataError, match="at least one row, and each row at least one clip"):
        strip_sheet([("caption", [])])
    with pytest.raises(DataError, match="clips of one size and as many frames"):
        strip_sheet([("caption", [Strip("", clip([1])), Strip("", clip([1, 2]))])])
    with pytest.raises(DataError, match="frames, all of one size, got none"):
        encode_gif([], 8)
    with pytest.raises(DataError, match=r"expected a clip of .* got \(16, 16, 3\)"):
        strip(Clip(clip([1]).frames[0]))


@pytest.mark.parametrize(("fps", "shown"), [(8, [120, 130, 130, 120]), (24, [40, 40, 40, 50]), (100, [20] * 4)])
def test_a_gif_has_every_frame_in_its_colour_at_its_speed(fps: float, shown: list[int]) -> None:
    reds = [10, 90, 170, 250]
    with Image.open(io.BytesIO(encode_gif(list(clip(reds, 300).frames), fps))) as image:
        assert image.info["loop"] == 0 and image.n_frames == 4  # type: ignore[attr-defined]
        found = [(np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(image)]
    assert [duration for _, duration in found] == shown
    for red, (pixels, _) in zip(reds, found, strict=True):
        assert pixels.shape == (300, 300, 3) and np.abs(pixels.astype(int) - (red, 0, 0)).max() <= 4


@pytest.mark.skipif(find_spec("av") is None, reason="the extra 'video' is not installed")
def test_an_mp4_has_every_frame_at_its_speed() -> None:
    import av

    content = encode_mp4(list(clip([10, 90, 170, 250], 33).frames), 12.5)
    with av.open(io.BytesIO(content)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12.5
    assert [frame.shape for frame in found] == [(34, 34, 3)] * 4
    assert (
        np.abs([int(frame[..., 0].mean()) - red for frame, red in zip(found, (10, 90, 170, 250), strict=True)]).max()
        < 8
    )

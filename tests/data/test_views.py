"""Views of images: cut and mirrored by key, alike for all images of a record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import CENTRE, ClipCut, Framing, View, image_tensor
from diffpref.data.images import clip_tensor

WIDE = np.random.default_rng(0).integers(0, 256, (8, 20, 3), dtype=np.uint8)


def test_a_view_cuts_where_it_says() -> None:
    pixels = torch.from_numpy(WIDE).permute(2, 0, 1).float() / 127.5 - 1
    for right, left in ((0.0, 0), (0.5, 6), (1.0, 12)):
        framed = image_tensor(WIDE, 8, View(right=right))
        assert torch.equal(framed.pixels, pixels[:, :, left : left + 8])
        assert (framed.original_size, framed.crop_offset) == ((8, 20), (0, left))
    tall = image_tensor(WIDE.transpose(1, 0, 2).copy(), 8, View(down=1.0))
    assert tall.crop_offset == (12, 0)


def test_a_mirrored_view_is_the_mirror_of_the_plain_one_and_tells_where_the_cut_lies_in_the_mirrored_picture() -> None:
    plain, mirrored = (image_tensor(WIDE, 8, View(turned, right=0.25)) for turned in (False, True))
    assert torch.equal(mirrored.pixels, plain.pixels.flip(-1))
    assert plain.crop_offset == (0, 3) and mirrored.crop_offset == (0, 12 - 3)
    again = image_tensor(WIDE[:, ::-1].copy(), 8, View(right=mirrored.crop_offset[1] / 12))
    assert torch.equal(again.pixels, mirrored.pixels)


def test_views_are_few_keyed_by_the_record_and_of_the_asked_kind() -> None:
    random = Random(0)
    assert Framing().views("a", random) == (CENTRE,)
    assert Framing(flip=True).views("a", random) == (CENTRE, View(mirrored=True))
    cropped = Framing(crop=True, count=5)
    views = cropped.views("a", random)
    assert len(set(views)) == 5 and not any(view.mirrored for view in views)
    assert views == cropped.views("a", Random(0)) != cropped.views("b", random)
    assert views != cropped.views("a", Random(1))
    many = [v for record in range(100) for v in Framing(flip=True, crop=True).views(str(record), random)]
    assert sum(view.mirrored for view in many) / len(many) == pytest.approx(0.5, abs=0.1)
    assert np.mean([view.down for view in many]) == pytest.approx(0.5, abs=0.06)


def test_a_visit_draws_each_view_equally_often() -> None:
    framing, random = Framing(flip=True), Random(0)
    drawn = [framing.view("r", "r/0-1", visit, random).mirrored for visit in range(400)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.08)
    assert drawn == [framing.view("r", "r/0-1", visit, Random(0)).mirrored for visit in range(400)]


def test_a_clip_is_cut_in_the_middle_by_its_own_or_another_speed() -> None:
    assert ClipCut(3).frames(3, None) == [0, 1, 2]
    assert ClipCut(3).frames(7, None) == [2, 3, 4]
    assert ClipCut(3, stride=2).frames(7, None) == [1, 3, 5]
    assert ClipCut(4, fps=8.0).frames(10, 24.0) == [0, 3, 6, 9]
    assert ClipCut(4, fps=8.0).frames(10, 23.976) == [0, 3, 6, 9]  # 24 frames a second, as films have them
    assert ClipCut(4, fps=10.0).frames(30, 25.0, start=0.0) == [0, 3, 5, 8]
    assert ClipCut(3, fps=24.0).frames(5, 24.0) == ClipCut(3).frames(5, None)


@pytest.mark.parametrize("fps", [None, 24.0, 25.0, 29.97])
def test_wherever_a_cut_begins_its_frames_are_in_the_clip_and_in_order(fps: float | None) -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        cut = ClipCut(int(draw.integers(1, 9)), fps=None if fps is None else float(draw.uniform(8, 24)))
        length = int(draw.integers(40, 60))
        early, late = cut.frames(length, fps, 0.0), cut.frames(length, fps, 1.0)
        some = cut.frames(length, fps, float(draw.random()))
        for places in (early, some, late):
            assert len(places) == cut.num_frames and places == sorted(set(places)) and 0 <= places[0]
            assert places[-1] < length and np.diff(places).tolist() == np.diff(early).tolist()
        assert early[0] == 0 and late[-1] >= length - 1 - (fps or 1) / (cut.fps or 1) and early[0] <= some[0] <= late[0]


def test_every_beginning_is_as_likely() -> None:
    cut, draws = ClipCut(3), np.linspace(0, 1, 600, endpoint=False)
    first = [cut.frames(8, None, float(start))[0] for start in draws]
    assert np.bincount(first).tolist() == [100] * 6


def test_a_clip_that_cannot_be_cut_so_is_refused() -> None:
    with pytest.raises(DataError, match=r"x: has 5 frames, too few for 3, 3 of the clip's apart .*; 7 are needed"):
        ClipCut(3, stride=3).frames(5, None, name="x")
    with pytest.raises(DataError, match=r"x: has 2 frames, too few for 3 \(data.num_frames\); 3 are needed"):
        ClipCut(3).frames(2, None, name="x")
    with pytest.raises(DataError, match="x: is a picture; a clip of 3 frames is expected"):
        ClipCut(3).frames(1, None, name="x")
    with pytest.raises(DataError, match=r"x: does not tell its frames a second, which data\.fps needs"):
        ClipCut(3, fps=8.0).frames(9, None, name="x")
    with pytest.raises(DataError, match=r"x: has 8 frames a second, and data.fps asks for 24; ask for fewer"):
        ClipCut(3, fps=24.0).frames(9, 8.0, name="x")


def test_clips_of_a_record_begin_alike_and_crops_stay_what_they_are() -> None:
    crops = Framing(crop=True, flip=True).views("r", Random(0))
    both = Framing(crop=True, flip=True, start=True).views("r", Random(0))
    assert [(v.mirrored, v.down, v.right) for v in both] == [(v.mirrored, v.down, v.right) for v in crops]
    assert {v.start for v in crops} == {0.5} and len({v.start for v in both}) == 4
    moments = Framing(start=True, count=3).views("r", Random(0))
    assert len({v.start for v in moments}) == 3 and {(v.mirrored, v.down, v.right) for v in moments} == {
        (False, 0.5, 0.5)
    }


def test_every_frame_of_a_clip_is_framed_alike() -> None:
    clip, view = np.stack([WIDE, WIDE[::-1], 255 - WIDE]), View(True, right=0.25)
    framed = clip_tensor(clip, 8, view)
    each = [image_tensor(frame, 8, view) for frame in clip]
    assert framed.pixels.shape == (3, 3, 8, 8)
    assert torch.equal(framed.pixels, torch.stack([one.pixels for one in each]))
    assert (framed.original_size, framed.crop_offset) == (each[0].original_size, each[0].crop_offset)

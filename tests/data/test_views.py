"""Views of images: cut and mirrored by key, alike for all images of a record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffpref.core.randomness import Random
from diffpref.data import CENTRE, Framing, View, image_tensor

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

"""Alterations are functions of pixels and key, and change no more than they say."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError
from diffpref.methods._pictures import ALTERATIONS, alter, corrupt, pixel_tensors, replace_pixels


def clip(pictures: int = 3, side: int = 16) -> Tensor:
    return torch.randn(pictures, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_an_alteration_is_a_function_of_its_key_and_leaves_the_original_alone(kind: str) -> None:
    pixels = clip()
    kept = pixels.clone()
    one, same = (ALTERATIONS[kind](pixels, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, same) and torch.equal(pixels, kept)
    assert one.shape == pixels.shape and one.dtype == pixels.dtype and not torch.equal(one, pixels)


@pytest.mark.parametrize("kind", ["crop", "shift", "mask", "shuffle"])
def test_all_pictures_of_a_record_are_altered_alike(kind: str) -> None:
    pixels = clip(1).expand(3, -1, -1, -1)
    made = ALTERATIONS[kind](pixels, 0.5, np.random.default_rng(1))
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_a_mask_hides_its_share_with_the_mean() -> None:
    pixels = clip()
    made = ALTERATIONS["mask"](pixels, 0.25, np.random.default_rng(0))
    hidden = (made != pixels).all(dim=1)
    assert hidden.float().mean().item() == 0.25
    assert torch.allclose(made, torch.where(hidden[:, None], pixels.mean(dim=(-2, -1), keepdim=True), pixels))


def test_a_shuffle_moves_tiles_and_loses_none() -> None:
    pixels = clip()
    made = ALTERATIONS["shuffle"](pixels, 0.5, np.random.default_rng(0))
    assert torch.equal(made.flatten(2).sort(dim=-1).values, pixels.flatten(2).sort(dim=-1).values)
    assert (made != pixels).float().mean().item() == 0.5


def test_a_shift_moves_the_whole_and_fills_with_the_mean() -> None:
    pixels = clip(1, 8)
    seen = set()
    for seed in range(40):
        made = ALTERATIONS["shift"](pixels, 0.25, np.random.default_rng(seed))
        filled = torch.isclose(made, pixels.mean(dim=(-2, -1), keepdim=True)).all(dim=1)
        seen.add(round(filled.float().mean().item(), 6))
    assert seen == {0.25, round(1 - 0.75**2, 6)}  # along one side, or along both


def test_a_crop_of_a_constant_picture_is_the_picture_and_frames_stay_in_order() -> None:
    assert torch.allclose(ALTERATIONS["crop"](torch.ones(1, 3, 8, 8), 0.5, np.random.default_rng(0)), torch.ones(1))
    pixels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    shown = ALTERATIONS["frames"](pixels, 0.5, np.random.default_rng(2))[:, 0, 0, 0]
    assert len(shown) == 8 and len(set(shown.tolist())) == 4 and torch.equal(shown, shown.sort().values)
    assert torch.equal(ALTERATIONS["reverse"](pixels, 0.5, np.random.default_rng(0)), pixels.flip(0))


@pytest.mark.parametrize("block", [1, 4])
def test_a_corrupted_picture_has_its_share_of_pixels_replaced_by_the_mean(block: int) -> None:
    pixels = clip(4, 40)
    made = corrupt(pixels, 0.3, np.random.default_rng(0), block)
    hidden = (made != pixels).all(dim=1)
    assert hidden.float().mean(dim=(1, 2)).tolist() == pytest.approx([0.3] * 4, abs=1e-6)
    assert torch.allclose(made, torch.where(hidden[:, None], pixels.mean(dim=(1, 2, 3), keepdim=True), pixels))
    assert not torch.equal(hidden[0], hidden[1])  # each picture has its own
    squares = hidden.view(4, 40 // block, block, 40 // block, block).float().mean(dim=(2, 4))
    assert set(squares.flatten().tolist()) == {0.0, 1.0}


def test_only_pixels_are_replaced_and_every_row_by_its_number() -> None:
    told = Conditioning({"vision_pixel_values": torch.zeros(2, 1, 3, 4, 4), "attention_mask": torch.ones(2, 5)})
    made = replace_pixels(told, "vdpo", lambda pixels, row: pixels + row)
    assert made.tensors["attention_mask"] is told.tensors["attention_mask"]
    assert made.tensors["vision_pixel_values"].flatten(1).mean(dim=1).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"attention_mask": torch.ones(2, 5)}, "vdpo alters what the model sees, and it is shown nothing"),
        ({"vision_pixel_values": torch.ones(2, 64, 1176)}, "of shape (64, 1176) a record, patches in a row"),
    ],
)
def test_what_cannot_be_altered_is_told(tensors: dict[str, Tensor], line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        pixel_tensors(Conditioning(tensors), "vdpo")


def test_the_order_of_a_single_picture_cannot_be_altered() -> None:
    with pytest.raises(ConfigError, match="'reverse' alters the order of several pictures"):
        alter(clip(1), ["reverse"], 0.5, np.random.default_rng(0))
    drawn = {
        math.isclose(alter(clip(), ["crop", "mask"], 0.5, np.random.default_rng(n)).sum().item(), 0) for n in range(3)
    }
    assert drawn == {False}

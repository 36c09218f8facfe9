"""The moving half of the little world: its captions, its clips, and the oracle that reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffpref.core.assets import resolve
from diffpref.core.errors import DataError
from diffpref.pretraining.scenes import to_pictures, to_tensor
from diffpref.pretraining.video import wrong_motion
from diffpref.shapes.grammar import COLOURS
from diffpref.shapes.motion import (
    DIRECTIONS,
    NUM_FRAMES,
    SIDE,
    SPEEDS,
    SPLITS,
    MovingCaption,
    moving_captions,
    render_clip,
    render_path,
)
from diffpref.shapes.motion_oracle import MOTION_FACTS, motion_facts, num_motion_facts_right, watch

EVERY = [caption for split in SPLITS for caption in moving_captions(split)]
CAPTIONS, SEEDS = st.sampled_from(EVERY), st.integers(0, 2**31)


def test_the_splits_are_a_partition_and_never_change() -> None:
    assert len({str(caption) for caption in EVERY}) == 144 and len(moving_captions("unseen")) == 44
    assert [str(moving_captions(split)[0]) for split in SPLITS] == [
        "a green triangle moving right slowly",
        "a blue square moving down quickly",
    ]


@given(CAPTIONS)
def test_a_sentence_reads_back(caption: MovingCaption) -> None:
    assert MovingCaption.parse(str(caption)) == caption


@pytest.mark.parametrize("text", ["", "a red circle", "a red circle moving", "a red circle moving away slowly"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a caption of the moving shapes"):
        MovingCaption.parse(text)


@given(CAPTIONS, SEEDS)
def test_the_oracle_accepts_renders(caption: MovingCaption, seed: int) -> None:
    clip = render_clip(caption, np.random.default_rng(seed))
    assert clip.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert num_motion_facts_right(clip, caption) == len(MOTION_FACTS)
    seen = watch(clip)
    low, high = SPEEDS[caption.speed]
    assert low - 0.7 < seen.distance < high + 0.7
    assert seen.dynamic_degree == pytest.approx(seen.distance / (NUM_FRAMES - 1), abs=0.15)
    assert seen.flicker == 0 and seen.single == 1


@given(CAPTIONS, SEEDS)
def test_a_mistaken_caption_has_one_wrong_fact(caption: MovingCaption, seed: int) -> None:
    random = np.random.default_rng(seed)
    clip, told = render_clip(caption, random), wrong_motion(caption, random)
    assert sum(not holds for holds in motion_facts(clip, told).values()) == 1


@given(CAPTIONS, SEEDS)
def test_a_clip_played_backwards_goes_the_other_way(caption: MovingCaption, seed: int) -> None:
    clip = render_clip(caption, np.random.default_rng(seed))
    way = np.array(DIRECTIONS[caption.direction])
    other = next(name for name, step in DIRECTIONS.items() if (np.array(step) == -way).all())
    assert watch(clip[::-1]).direction == other and watch(clip[::-1]).speed == caption.speed


def test_a_still_clip_has_neither_direction_nor_speed() -> None:
    caption = EVERY[0]
    clip = np.repeat(render_clip(caption, np.random.default_rng(0))[:1], NUM_FRAMES, axis=0)
    seen = watch(clip)
    assert (seen.direction, seen.speed, seen.dynamic_degree, seen.flicker) == (None, None, 0.0, 0.0)
    assert [name for name, holds in motion_facts(clip, caption).items() if not holds] == ["direction", "speed"]


@pytest.mark.parametrize("caption", EVERY[::9], ids=str)
def test_half_a_clip_shows_the_facts_of_the_whole(caption: MovingCaption) -> None:
    clip = render_clip(caption, np.random.default_rng(1))
    assert num_motion_facts_right(clip[: NUM_FRAMES // 2], caption) == 5
    assert num_motion_facts_right(clip[NUM_FRAMES // 2 :], caption) == 5


def test_a_crooked_way_has_no_direction() -> None:
    places = np.linspace([9.0, 9.0], [19.0, 17.0], NUM_FRAMES)
    seen = watch(render_path(EVERY[0].thing, places, 5.0))
    assert seen.direction is None and seen.speed == "quickly"


def test_flicker_and_other_colours_are_seen() -> None:
    caption = EVERY[0]
    clip = render_clip(caption, np.random.default_rng(0))
    brighter = clip.astype(np.int64) + 12 * (np.arange(NUM_FRAMES) % 2)[:, None, None, None]
    assert watch(brighter.clip(0, 255).astype(np.uint8)).flicker > 5
    colour = next(one for one in COLOURS if one != caption.thing.colour)
    found = motion_facts(clip, replace(caption, thing=replace(caption.thing, colour=colour)))
    assert [name for name, holds in found.items() if not holds] == ["colour"]


def test_an_empty_clip_has_no_facts_and_other_arrays_are_refused() -> None:
    assert num_motion_facts_right(np.full((8, 32, 32, 3), 240, np.uint8), EVERY[0]) == 0
    for wrong in (np.zeros((32, 32, 3), np.uint8), np.zeros((8, 32, 32, 3)), np.zeros((1, 32, 32, 3), np.uint8)):
        with pytest.raises(ValueError, match="at least two frames"):
            watch(wrong)


def test_the_bundled_vae_loses_no_fact() -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(resolve("bundled:shapes-sdxl"), subfolder="vae")
    accepted = 0
    for number, caption in enumerate(EVERY[:60]):
        clip = render_clip(caption, np.random.default_rng(number))
        with torch.no_grad():
            again = to_pictures(vae.decode(vae.encode(to_tensor(clip)).latent_dist.mode()).sample)
        accepted += num_motion_facts_right(again, caption) == len(MOTION_FACTS)
    assert accepted / 60 >= 0.95

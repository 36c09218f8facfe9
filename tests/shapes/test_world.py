"""The little world: its captions, its pictures, and the oracle that reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.shapes.grammar import COLOURS, HELD_OUT, RELATIONS, SHAPES, SPLITS, Caption, all_captions, captions
from diffpref.shapes.oracle import FACTS, facts, look, num_facts_right
from diffpref.shapes.render import BACKGROUND, SIZE, coverage, place, render, render_scene

CAPTIONS = st.sampled_from(all_captions())
SEEDS = st.integers(0, 2**31)


def test_there_are_more_than_a_thousand_distinct_captions() -> None:
    assert len({str(caption) for caption in all_captions()}) == len(all_captions()) == 1224


def test_the_splits_are_a_partition_and_hold_out_whole_objects() -> None:
    parts = [set(captions(split)) for split in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(all_captions())
    assert [len(part) for part in parts] == [460, 500, 264]
    shown = {thing for caption in [*parts[0], *parts[1]] for thing in (caption.first, caption.second)}
    assert shown.isdisjoint(HELD_OUT)
    seen = {thing for caption in captions("seen") for thing in (caption.first, caption.second)}
    assert seen == shown  # every object of an unseen caption was seen


def test_the_splits_never_change() -> None:
    """The bundled models were trained on them: another split would make their cards untrue."""
    assert [str(captions(split)[0]) for split in SPLITS] == [
        "a blue triangle right of a yellow circle",
        "a red square left of a green circle",
        "a red circle left of a yellow square",
    ]


@given(CAPTIONS)
def test_a_sentence_reads_back(caption: Caption) -> None:
    assert Caption.parse(str(caption)) == caption


@pytest.mark.parametrize(
    "text", ["", "a red circle", "a red circle near a blue square", "a pink circle above a red square"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a caption of the shapes world"):
        Caption.parse(text)


def test_the_oracle_accepts_renders() -> None:
    accepted = 0
    for number in range(400):
        generator = Random(1).numpy("oracle", number)
        caption = all_captions()[generator.integers(len(all_captions()))]
        accepted += all(facts(render(caption, generator), caption).values())
    assert accepted / 400 >= 0.99


@given(CAPTIONS, SEEDS)
def test_one_changed_word_makes_one_fact_wrong(caption: Caption, seed: int) -> None:
    picture = render(caption, np.random.default_rng(seed))
    opposite = RELATIONS[RELATIONS.index(caption.relation) ^ 1]
    wrong = replace(caption, relation=opposite)
    found = facts(picture, wrong)
    assert not all(found.values())
    colour = next(c for c in COLOURS if c not in (caption.first.colour, caption.second.colour))
    found = facts(picture, replace(caption, first=replace(caption.first, colour=colour)))
    assert [name for name in FACTS if not found[name]] == ["first_colour"]


@given(CAPTIONS, SEEDS)
def test_both_ways_to_say_it_hold(caption: Caption, seed: int) -> None:
    picture = render(caption, np.random.default_rng(seed))
    opposite = RELATIONS[RELATIONS.index(caption.relation) ^ 1]
    assert num_facts_right(picture, Caption(caption.second, opposite, caption.first)) == len(FACTS)


def test_an_empty_picture_and_noise_have_no_facts() -> None:
    caption = captions("seen")[0]
    empty = np.full((SIZE, SIZE, 3), BACKGROUND, dtype=np.uint8)
    assert look(empty) == [] and num_facts_right(empty, caption) == 0
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert num_facts_right(noise, caption) < len(FACTS)


def test_a_third_object_is_noticed() -> None:
    caption = next(c for c in captions("seen") if c.relation == "left of")
    scene = place(caption, np.random.default_rng(0))
    third = replace(scene[0], x=32.0, y=8.0, radius=5.0)
    assert not facts(render_scene((*scene, third)), caption)["two_objects"]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_have_the_same_area(shape: str) -> None:
    assert coverage(shape, 32.2, 31.7, 9.0).sum() == pytest.approx(np.pi * 81, rel=0.02)


@given(CAPTIONS, SEEDS)
def test_objects_lie_inside_and_apart(caption: Caption, seed: int) -> None:
    first, second = (
        coverage(p.thing.shape, p.x, p.y, p.radius) > 0 for p in place(caption, np.random.default_rng(seed))
    )
    assert not (first & second).any()
    for mask in (first, second):
        assert not (mask[0].any() and mask[1:].sum() == 0)
        assert 150 < mask.sum() < 500


def test_a_wrong_image_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        look(np.zeros((64, 64, 3), dtype=np.float32))

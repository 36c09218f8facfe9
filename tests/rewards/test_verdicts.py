"""What judges say, read: numbers, preferences, yes and no; NaN for what cannot be read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from diffpref.rewards._verdicts import Phrases, agreed, aspect_scores, pair_verdict, point_score, yes_or_no

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards" / "vlm_judge_parsing.json"


def final(text: str, low: float = 1, high: float = 5) -> float:
    return point_score(text, low=low, high=high, label="Final Score")


def test_flow_grpos_readings_as_its_code_has_them() -> None:
    case = json.loads(GOLDEN.read_text())
    inputs, expected = case["inputs"], case["expected"]
    read = [point_score(text, low=1, high=5, legacy="unified_reward") for text in inputs["unifiedreward_outputs"]]
    assert read == expected["unifiedreward_flowgrpo(score/5)"]
    read = [point_score(text, low=1, high=5, legacy="qwen_tags") for text in inputs["qwen_outputs"]]
    assert read == expected["qwen_flowgrpo(score/5)"]
    assert point_score("Final Score: 10", low=1, high=10, legacy="unified_reward") == 0.2


def test_ours_reads_the_same_answers_as_numbers_and_failures_as_nan() -> None:
    inputs = json.loads(GOLDEN.read_text())["inputs"]
    ours = [final(text) for text in inputs["unifiedreward_outputs"]]
    assert ours[0] == 4.5 and math.isnan(ours[1]) and math.isnan(ours[2]) and ours[3] == 3.0
    assert [point_score(text, low=1, high=5, tag="Score") for text in inputs["qwen_outputs"]] == [4.0, 4.5]
    assert final("Final Score: 10", high=10) == 10.0
    assert final("Final Score: 7", high=10) == 7.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Final Score: 4", 4.0),
        ("**Final Score:** 4", 4.0),
        ("Final Score: **4**", 4.0),
        ("final score = 2.", 2.0),
        ("Final Score (1-5): 3.25", 3.25),
        ("Final Score: 4/5", 4.0),
        ("Final Score: **4**/5", 4.0),
        ("Final Score: 4 out of 5.", 4.0),
        ("Final Score: 1\nNo, I was too strict.\nFinal Score: 2", 2.0),
        ("Final Score: 0.5", None),
        ("Final Score: 5.1", None),
        ("Final Score: -1", None),
        ("Final Score: 45", None),
        ("Final Score: 4/10", None),
        ("Final Score: **4**/10", None),
        ("Final Score: 4-5", None),
        ("Final Score: 4,5", None),
        ("Final Score: 80%", None),
        ("Final Score: four", None),
        ("Not a Semifinal Score: 4", None),
        ("4", None),
        ("", None),
    ],
)
def test_a_labelled_number(text: str, value: float | None) -> None:
    found = final(text)
    assert math.isnan(found) if value is None else found == value


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4.0), (" **4.5**\n", 4.5), ("4/5", 4.0), ("4.", 4.0), ("4 stars", None), ("a 4", None)]
)
def test_without_label_and_tag_the_number_must_be_all_that_is_said(text: str, value: float | None) -> None:
    found = point_score(text, low=1, high=5)
    assert math.isnan(found) if value is None else found == value


def test_aspects_stand_after_their_names() -> None:
    text = "Alignment Score (1-5): 3.5\nCoherence Score (1-5): 6\nstyle score: 2"
    found = aspect_scores(text, ["Alignment Score", "Coherence Score", "Style Score"], low=1, high=5)
    assert found["Alignment Score"] == 3.5 and math.isnan(found["Coherence Score"]) and found["Style Score"] == 2.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Image 1 is better.", 1.0),
        ("**Image 2** is  better", 0.0),
        ("Both images are equally good", 0.5),
        ("Image 1 is better lit, but overall Image 2 is better", 0.0),
        ("Image 2 is better, or no: both are equally good.", 0.5),
        ("Image 2 is better at hands. <answer>Image 1 is better</answer>", 1.0),
        ("Image 2 is better. <answer>I cannot say</answer>", None),
        ("Image 11 is better", None),
        ("I cannot tell", None),
    ],
)
def test_the_better_one_of_two(text: str, value: float | None) -> None:
    found = pair_verdict(text)
    assert math.isnan(found) if value is None else found == value


def test_other_words_for_the_better_one() -> None:
    phrases = Phrases("[[A]]", "[[B]]", "[[C]]", tag="")
    assert [pair_verdict(text, phrases) for text in ("so [[A]]", "so [[B]]", "[[C]]")] == [1.0, 0.0, 0.5]


def test_the_official_sifter_lets_the_first_win_what_is_undecided() -> None:
    assert pair_verdict("I cannot tell", legacy=True) == 1.0
    assert pair_verdict("Both are equally good", legacy=True) == 1.0
    assert pair_verdict("Image 2 is better", legacy=True) == 0.0


@pytest.mark.parametrize(
    ("forward", "backward", "value"),
    [
        (1.0, 0.0, 1.0),  # the first of the pair, wherever it is shown
        (0.0, 1.0, 0.0),
        (0.5, 0.5, 0.5),
        (1.0, 1.0, 0.5),  # whatever is shown first
        (0.0, 0.0, 0.5),
        (1.0, 0.5, 0.5),
        (math.nan, 0.0, None),
        (1.0, math.nan, None),
    ],
)
def test_two_orders_that_contradict_each_other_are_a_tie(forward: float, backward: float, value: float | None) -> None:
    found = agreed(forward, backward)
    assert math.isnan(found) if value is None else found == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("Yes.", 1.0), ("no", 0.0), ("It is there: yes", 1.0), ("Yes, but no", None), ("Perhaps", None), ("Not", None)],
)
def test_yes_and_no(text: str, value: float | None) -> None:
    found = yes_or_no(text)
    assert math.isnan(found) if value is None else found == value

"""Scores from questions of yes and no: gates, weights, unreadable answers, the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from tiny_vlms import save_llava

from diffpref import rewards
from diffpref.core.contracts import AspectReward
from diffpref.core.errors import ConfigError
from diffpref.rewards._checklist import Checklist, Item
from diffpref.rewards._vlm import Question
from diffpref.rewards.vlm_judge import judge_of

FILE = """
intercept: 0.25
questions:
  - {id: face, text: "Is a face to be seen?"}
  - {id: eyes, text: "Do both eyes look right?", weight: 0.5, only_if: face}
  - {id: light, text: "Is the light pleasant?", weight: 2}
  - {id: asked, text: "Does it show '{prompt}'?", weight: 1}
"""
PICTURE = Image.new("RGB", (16, 16), "red")


@pytest.fixture
def checklist(tmp_path: Path) -> Checklist:
    file = tmp_path / "list.yaml"
    file.write_text(FILE)
    return Checklist.read(str(file))


def test_yes_adds_a_weight_no_takes_it_away_and_a_closed_question_counts_nothing(checklist: Checklist) -> None:
    said = {"face": 1.0, "eyes": 1.0, "light": 0.0, "asked": 1.0}
    assert checklist.total(said) == pytest.approx(0.25 + 0.5 - 2 + 1)
    assert checklist.total({**said, "eyes": 0.0}) == pytest.approx(0.25 - 0.5 - 2 + 1)
    assert checklist.total({**said, "face": 0.0}) == pytest.approx(0.25 - 2 + 1)
    assert checklist.counted({**said, "face": 0.0}) == {"face": -1.0, "eyes": 0.0, "light": -1.0, "asked": 1.0}
    assert checklist.range == (-3.25, 3.75) and checklist.needs_prompt


def test_probabilities_count_by_what_they_are(checklist: Checklist) -> None:
    said = {"face": 0.6, "eyes": 0.75, "light": 0.5, "asked": 1.0}
    assert checklist.total(said) == pytest.approx(0.25 + 0.5 * 0.5 + 0 + 1)


def test_what_cannot_be_read_is_nan_where_it_matters(checklist: Checklist) -> None:
    said = {"face": 1.0, "eyes": 1.0, "light": 1.0, "asked": 1.0}
    assert math.isnan(checklist.total({**said, "light": math.nan}))
    assert math.isnan(checklist.total({**said, "face": math.nan}))
    assert not math.isnan(checklist.total({**said, "face": 0.0, "eyes": math.nan}))


def test_the_judge_asks_every_question_of_every_picture(checklist: Checklist) -> None:
    asked: list[str] = []

    def say(questions: Sequence[Question]) -> list[str]:
        asked.extend(question.text for question in questions)
        return ["no" if "light" in q.text else "maybe" if "'b'" in q.text else "Yes." for q in questions]

    judge = judge_of(say, mode="checklist", checklist=checklist)
    assert isinstance(judge, AspectReward) and judge.info.aspects == checklist.names
    scores = judge.score([PICTURE, PICTURE], ["a", "b"])
    assert scores[0].item() == pytest.approx(-0.25) and scores[1].isnan()
    assert len(asked) == 8 and "Does it show 'a'? Answer yes or no." in asked[3]
    assert judge.transcript.unread == 1
    aspects = judge.score_aspects([PICTURE], ["a"])
    assert {name: values.item() for name, values in aspects.items()} == {"face": 1, "eyes": 1, "light": -1, "asked": 1}
    other = judge_of(say, mode="checklist", checklist=Checklist(checklist.items, 0.5))
    assert other.info.version != judge.info.version and other.info.range != judge.info.range


@pytest.mark.parametrize("reading", ["words", "probability"])
def test_a_real_model_answers_a_checklist(tmp_path: Path, reading: str) -> None:
    (tmp_path / "list.yaml").write_text(FILE)
    folder = str(save_llava(tmp_path / "model", answers=["yes", "no"]))
    judge = rewards.load(
        "vlm_judge", folder, mode="checklist", checklist=str(tmp_path / "list.yaml"), reading=reading, max_new_tokens=1
    )
    score = judge.score([PICTURE], ["a red square"]).item()
    low, high = judge.info.range
    assert low <= score <= high and judge.transcript.unread == 0 and judge.transcript.asked == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("questions: []", "questions"),
        ("questions: [{id: a}]", "text"),
        ("questions: [{id: a, text: b, wieght: 1}]", "wieght"),
        ("questions: [{id: a, text: b}, {id: a, text: c}]", "two questions are named 'a'"),
        ("questions: [{id: a, text: b, only_if: c}]", "waits for 'c', which is not there"),
        ("questions: [{id: a, text: b}, {id: c, text: d, only_if: a}, {id: e, text: f, only_if: c}]", "waits itself"),
    ],
)
def test_a_file_that_is_no_checklist_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Checklist.read(str(file))


def test_a_checklist_without_its_mode_is_refused(checklist: Checklist) -> None:
    with pytest.raises(ConfigError, match="go together"):
        judge_of(lambda questions: [], checklist=checklist)


def test_no_weights_still_have_a_range() -> None:
    low, high = Checklist((Item(id="a", text="b"),)).range
    assert low < high

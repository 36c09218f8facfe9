"""What is read against what is quoted: the official rule, and what is done where there is nothing to compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from diffpref import rewards
from diffpref.core.errors import ConfigError, DataError
from diffpref.rewards._edit_distance import edit_distance
from diffpref.rewards.ocr import OcrReward, quoted, reading_score

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards" / "ocr_reward.json"
BLANK = np.zeros((16, 16, 3), np.uint8)


def test_official_scores():
    case = json.loads(GOLDEN.read_text())
    found = [reading_score(*pair) for pair in case["inputs"]["pairs(target,recognised)"]]
    assert found == pytest.approx(case["expected"]["reward"], abs=1e-12)


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ('a sign "OPEN" and "CLOSED"', "OPEN"),
        ("a sign \N{LEFT DOUBLE QUOTATION MARK}Hi there\N{RIGHT DOUBLE QUOTATION MARK}.", "Hi there"),
        ("no quotes, but it's fine", ""),
        ('an empty ""', ""),
        ('one mark " only', ""),
    ],
)
def test_the_first_quoted_text_is_the_target(prompt, target):
    assert quoted(prompt) == target


def slow_distance(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    same = slow_distance(first[1:], second[1:])
    if first[0] == second[0]:
        return same
    return 1 + min(same, slow_distance(first[1:], second), slow_distance(first, second[1:]))


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edit_distance_by_its_recursion(first, second):
    assert edit_distance(first, second) == slow_distance(first, second) == edit_distance(second, first)


def test_scores_fall_with_each_wrong_letter_and_not_below_zero():
    scores = [reading_score("HELLO", read) for read in ("say hello!", "hell", "hel", "", "completely other words")]
    assert scores == pytest.approx([1.0, 0.8, 0.6, 0.0, 0.0])


def test_texts_without_confidence_are_not_read_and_the_others_are_joined():
    reward = OcrReward(lambda picture: [("Hello", 0.3), ("rubbish", 0.0), (" World", 0.9)])
    assert reward.score([BLANK], ['"hello world"']).tolist() == [1.0]
    assert OcrReward(lambda picture: []).score([BLANK], ['"hello"']).tolist() == [0.0]


def test_a_prompt_without_quotes_is_told_or_has_no_score_but_never_zero():
    with pytest.raises(DataError, match=r"item 1: the prompt has no text in double quotes.*without_quotes: nan"):
        OcrReward(lambda picture: []).score([BLANK, BLANK], ['a "b"', "a cat"])
    scores = rewards.load("ocr", engine=lambda picture: [("b", 1.0)], without_quotes="nan").score(
        [BLANK] * 3, ['a "b"', "a cat", 'a " "']
    )
    assert scores[0] == 1 and scores[1:].isnan().all()


def test_an_engine_that_gives_something_else_is_told():
    def broken(picture):
        return ["only texts"]

    with pytest.raises(DataError, match=r"item 0: an engine gives \(text, confidence\) pairs"):
        OcrReward(broken).score([BLANK], ['a "b"'])
    assert OcrReward(broken).info.version == "1+broken"


def test_a_path_is_refused_and_an_engine_must_be_callable():
    with pytest.raises(ConfigError, match="takes no path"):
        rewards.load("ocr", "folder")
    with pytest.raises(ConfigError, match="engine"):
        rewards.load("ocr", engine="rapidocr")


def test_rapidocr_reads_what_is_written():
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    picture = Image.new("RGB", (256, 96), "white")
    ImageDraw.Draw(picture).text((20, 30), "Hello World", fill="black", font=ImageFont.load_default(28))
    reward = rewards.load("ocr")
    scores = reward.score([picture, BLANK, picture], ['a sign "hello world"', 'a sign "hello world"', '"Goodbye"'])
    assert scores[0] == 1 and scores[1] == 0 and scores[2] < 0.5
    assert reward.info.version.startswith("1+rapidocr-") and reward.info.licence == "Apache-2.0"

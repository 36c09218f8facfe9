"""Programs as judges: what each ready one takes for right, and functions of one's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from diffpref import rewards
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, DataError, DiffprefError
from diffpref.rewards.program import ProgramReward, numbers


def score(answer: str, entry: dict[str, Any] | None = None, **options: Any) -> float:
    reward = rewards.load("program", **options)
    return float(reward.score([answer], ["a prompt"], None if entry is None else [entry]))


@pytest.mark.parametrize(
    ("answer", "expected", "options", "right"),
    [
        ("Paris", "paris", {}, True),
        ("  new   york\n", "New York", {}, True),
        ("Paris.", "Paris", {}, False),
        ("42", 42, {}, True),
        ("Paris", "paris", {"normalise": False}, False),
        ("Paris", "Paris", {"normalise": False}, True),
    ],
)
def test_exact_match(answer, expected, options, right):
    assert score(answer, {"answer": expected}, program="exact_match", **options) == right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it is 1,234.5.", [1234.5]),
        ("from 3 to -4, or .5", [3.0, -4.0, 0.5]),
        ("3-2", [3.0, 2.0]),
        ("2e-3 and 1E2", [0.002, 100.0]),
        ("\N{MINUS SIGN}7 degrees", [-7.0]),
        ("1,23", [1.0, 23.0]),
        ("#### 18", [18.0]),
        ("no number, e or .", []),
        ("$12,000,000", [12_000_000.0]),
        ("x=+5", [5.0]),
    ],
)
def test_numbers_of_a_text(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected", "options", "right"),
    [
        ("First 3, then 5, so the answer is 8.", "8", {}, True),
        ("8 or 9", 8, {}, False),
        ("1,000", "1000", {}, True),
        ("none", 3, {}, False),
        ("3.14", 3.14159, {}, False),
        ("3.14", 3.14159, {"tolerance": 1e-3}, True),
        ("0.0000001", 0, {}, True),
        ("1000001", 1_000_000, {"tolerance": 1e-5}, True),
    ],
)
def test_number(answer, expected, options, right):
    assert score(answer, {"answer": expected}, program="number", **options) == right


@pytest.mark.parametrize(
    ("answer", "pattern", "right"),
    [("<think>a</think> b", r"^<think>.*</think>", True), ("b <think>", r"^<think>", False), ("a1", r"\d", True)],
)
def test_regex(answer, pattern, right):
    assert score(answer, {"pattern": pattern}, program="regex") == right


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("one two three", {"low": 3, "high": 3}, True),
        ("one two", {"low": 3}, False),
        ("one two three four", {"high": 3}, False),
        ("abcd", {"low": 4, "high": 4, "unit": "characters"}, True),
        ("", {}, True),
    ],
)
def test_length(answer, options, right):
    assert score(answer, program="length", **options) == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"a": [1, 2]}', True),
        (" 3 ", True),
        ("{'a': 1}", False),
        ("NaN", False),
        ("", False),
        ("9" * 9_999, True),
        ("[" * 100_000, False),
    ],
)
def test_json(answer, right):
    assert score(answer, program="json") == right


@pytest.mark.parametrize(
    ("program", "entry", "message"),
    [
        ("exact_match", {}, r"item 0: metadata needs 'answer', a text or a number, got None"),
        ("number", {"answer": "two"}, "metadata 'answer' must be one number, got 'two'"),
        ("number", {"answer": True}, "metadata needs 'answer'"),
        ("regex", {"pattern": "("}, "metadata 'pattern' is no regular expression"),
        ("regex", None, "reads metadata of each item, and none were given"),
    ],
)
def test_metadata_that_say_nothing_are_refused(program, entry, message):
    with pytest.raises(DataError, match=message) as caught:
        score("a", entry, program=program)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (None, {}, "choose one with program: exact_match, json, length, number or regex; .*ProgramReward"),
        (None, {"program": "os.system"}, "program: must be one of exact_match"),
        ("folder", {"program": "json"}, "takes no path"),
        (None, {"program": "length", "low": 5, "high": 4}, "low 5 is above high 4"),
    ],
)
def test_mistakes_are_one_clear_line(path, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        rewards.load("program", path, **options)
    assert "\n" not in str(caught.value)


def test_a_function_of_ones_own_is_a_reward():
    def vowels(answer: str, prompt: str, metadata: Any) -> float:
        return sum(letter in "aeiou" for letter in answer) / len(answer) if answer else math.nan

    reward = ProgramReward(vowels, name="vowels", version="2", pair_scale=3.0)
    assert isinstance(reward, Reward) and reward.info.version == "vowels-2" and reward.info.pair_scale == 3.0
    found = reward.score(["aab", "xyz", ""], ["p"] * 3)
    half = ProgramReward(lambda *_: np.float32(0.5), name="half", version="1")
    assert half.score(["a"], ["p"]).tolist() == [0.5]
    assert found[:2].tolist() == pytest.approx([2 / 3, 0]) and torch.isnan(found[2]) and found.dtype == torch.float32
    with pytest.raises(DiffprefError, match="item 0 is an image"):
        reward.score([np.zeros((2, 2, 3), np.uint8)], ["p"])


def test_a_function_that_gives_no_number_is_told_apart():
    reward = ProgramReward(lambda answer, prompt, metadata: "good", name="odd", version="1")  # type: ignore[return-value]
    with pytest.raises(DataError, match=r"\(odd\), item 0: expected a number, got str"):
        reward.score(["a"], ["p"])


def test_versions_tell_settings_apart():
    settings = [{"program": "number"}, {"program": "number", "tolerance": 0.1}, {"program": "json"}]
    settings += [{"program": "length", "high": 3}, {"program": "length", "high": 4}]
    assert len({rewards.load("program", **options).info.version for options in settings}) == len(settings)

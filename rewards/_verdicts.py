"""What a judge's words mean: a score, a preference, a yes or a no. What cannot be read is NaN, never a number.

Everything here is a function of text. Where official code reads answers differently, ``legacy`` says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["PAIR_PHRASES", "Legacy", "Phrases", "agreed", "aspect_scores", "pair_verdict", "point_score", "yes_or_no"]

Legacy: TypeAlias = Literal["unified_reward", "qwen_tags"]

_MARK = r"\s*_`\"'"  # spaces and emphasis, as models write it
_MARKS = f"[{_MARK}]*"
_OF = rf"{_MARKS}(?:/|out\s+of){_MARKS}"
_NUMBER = rf"([-+]?\d+(?:\.\d+)?)(?:{_OF}(\d+(?:\.\d+)?))?(?![\d%]|[.,]\d|\s*[-~]\s*\d|{_OF}\d)"
"""A number, and what it is out of: 4 is no part of 4%, 4,5, 4-5 or 45."""
_LEGACY = {
    "unified_reward": r"Final Score:\s*([1-5](?:\.\d+)?)",
    "qwen_tags": r"<Score>(\d+)</Score>",
}


def point_score(
    text: str, *, low: float, high: float, label: str = "", tag: str = "", legacy: Legacy | None = None
) -> float:
    """Return the score that a judge gives at last, or NaN.

    Args:
        text: what it says.
        low: smallest score that was asked for.
        high: largest.
        label: words before the number, such as ``"Final Score"``; a range in brackets may follow them, then a colon.
        tag: name of the tag that holds the number, in place of a label: ``<Score>4</Score>``. With neither, the text
            must be the number and nothing else.
        legacy: read as Flow-GRPO's code does (yifan123/flow_grpo), which divides by 5 and takes what it cannot read
            for 0: ``"unified_reward"`` sees the first digit of 1..5 after "Final Score:", so that 10 is 1 and 7 is
            nothing; ``"qwen_tags"`` sees whole numbers in ``<Score>`` alone. ``low`` to ``tag`` are not read then.

    Returns:
        a number of [low, high]. 4, 4.5, 4/5 and "4 out of 5" of 1..5 are numbers; 4/10, 4-5, 7 and 4,5 are not.

    >>> point_score("Good light.\\nFinal Score: 10", low=1, high=10, label="Final Score")
    10.0
    >>> point_score("Final Score: 10", low=1, high=10, legacy="unified_reward")
    0.2
    """
    if legacy is not None:
        found = re.search(_LEGACY[legacy], text)
        return float(found[1]) / 5 if found else 0.0
    if tag:
        pattern = rf"<{re.escape(tag)}>{_MARKS}{_NUMBER}{_MARKS}</{re.escape(tag)}>"
    elif label:
        pattern = rf"(?<!\w){re.escape(label)}{_MARKS}(?:\([^)\n]*\){_MARKS})?[:=]{_MARKS}{_NUMBER}"
    else:
        pattern = rf"\A{_MARKS}{_NUMBER}[.{_MARK}]*\Z"
    matches = list(re.finditer(pattern, text, re.IGNORECASE))
    if not matches:
        return math.nan
    value, total = float(matches[-1][1]), matches[-1][2]
    if not low <= value <= high or (total is not None and float(total) != high):
        return math.nan
    return value


def aspect_scores(text: str, aspects: Sequence[str], *, low: float, high: float) -> dict[str, float]:
    """Return the score after each aspect's name, as in ``Style Score (1-5): 3.5``; NaN for what is not there."""
    return {aspect: point_score(text, low=low, high=high, label=aspect) for aspect in aspects}


@dataclass(frozen=True)
class Phrases:
    """How a judge was told to name the better one of two.

    Args:
        first: words for the first.
        second: words for the second.
        tie: words for neither.
        tag: where it is there, what stands in it alone counts: ``<answer>Image 1 is better</answer>``.
    """

    first: str
    second: str
    tie: str
    tag: str = "answer"


PAIR_PHRASES = Phrases("Image 1 is better", "Image 2 is better", "equally good")
"""As UnifiedReward is trained to answer."""


def pair_verdict(text: str, phrases: Phrases = PAIR_PHRASES, *, legacy: bool = False) -> float:
    """Return P(the first is better) that the last of a judge's verdicts states: 1, 0, 0.5 for a tie, or NaN.

    Args:
        text: what it says.
        phrases: how it was told to say it; letters' case does not matter.
        legacy: as UnifiedReward's sifter of preference pairs (CodeGoat24/UnifiedReward): whatever does not name the
            second one is a win of the first.

    >>> pair_verdict("Image 1 is better lit, but overall Image 2 is better.")
    0.0
    """
    if legacy:
        return 0.0 if phrases.second in text and phrases.first not in text else 1.0
    name = re.escape(phrases.tag)
    if phrases.tag and (told := re.findall(rf"<{name}>(.*?)</{name}>", text, re.IGNORECASE | re.DOTALL)):
        text = told[-1]
    said = re.sub(r"[\s*_`]+", " ", text).lower()
    choices = {1.0: phrases.first, 0.0: phrases.second, 0.5: phrases.tie}
    places = {value: _last(said, words.lower()) for value, words in choices.items() if words}
    best = max(places, key=lambda value: places[value])
    return best if places[best] >= 0 else math.nan


def _last(text: str, words: str) -> int:
    """Return where words last stand, not as a part of longer ones; -1 where they do not."""
    found = list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text))
    return found[-1].end() if found else -1


def agreed(forward: float, backward: float) -> float:
    """Return P(the first is better) of a judge that was asked in both orders: where it contradicts itself, a tie.

    Args:
        forward: P(the one shown first is better), the first of the pair shown first.
        backward: the same, the second of the pair shown first.

    Returns:
        1, 0 or 0.5; NaN where either could not be read.

    >>> agreed(1.0, 0.0), agreed(1.0, 1.0)  # the same one twice; whatever is shown first
    (1.0, 0.5)
    """
    if math.isnan(forward) or math.isnan(backward):
        return math.nan
    return forward if forward == 1.0 - backward else 0.5


def yes_or_no(text: str) -> float:
    """Return 1 for an answer that begins or ends with yes, 0 for no, NaN for neither and for both."""
    words = re.findall(r"[a-z]+", text.lower())
    ends = {word for word in (*words[:1], *words[-1:]) if word in ("yes", "no")}
    return float(ends == {"yes"}) if len(ends) == 1 else math.nan

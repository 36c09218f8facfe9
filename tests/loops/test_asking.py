"""Asking judges of every kind, in both orders where they compare."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from diffpref import rewards
from diffpref.core.contracts import Candidate, Judge, Record, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import score_of
from diffpref.loops.asking import Asked, Nothing
from diffpref.rewards.ensemble import Ensemble, Member
from diffpref.words import instructions

ONE = instructions("unseen", 1)[0]
TEXTS = (ONE.answer, "nothing of it", " ".join(ONE.wanted))
RECORD = Record("r", str(ONE), tuple(Candidate(text=text) for text in TEXTS))


class Longer:
    """Prefers longer answers, and whatever is shown first by 0.2."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def compare(self, first: Any, second: Any, prompts: Any) -> torch.Tensor:
        self.asked += list(zip(first, second, strict=True))
        fair = [0.5 + 0.1 * ((len(a) > len(b)) - (len(a) < len(b))) for a, b in zip(first, second, strict=True)]
        return torch.tensor(fair, dtype=torch.float64) + 0.2


def test_a_reward_is_a_judge_through_its_pair_scale() -> None:
    judge = rewards.load("words")
    ((scored, verdict),) = Asked(judge, "words")([RECORD])
    scores = judge.score(TEXTS, [str(ONE)] * 3).tolist()
    assert verdict is not None and verdict.scores == pytest.approx(scores)
    assert [c.scores[0].value for c in scored.candidates] == pytest.approx(scores)
    assert judge.info.pair_scale is not None
    assert verdict.beats(0, 1) == pytest.approx(1 / (1 + math.exp(-judge.info.pair_scale * (scores[0] - scores[1]))))
    ((_, own),) = Asked(judge, "words", pair_scale=0.5)([RECORD])
    assert own is not None and own.beats(0, 1) == pytest.approx(1 / (1 + math.exp(-0.5 * (scores[0] - scores[1]))))


def test_a_judge_that_compares_is_asked_in_both_orders() -> None:
    judge = Longer()
    assert isinstance(judge, Judge)
    ((same, verdict),) = Asked(judge, "longer")([RECORD])
    assert verdict is not None and same == RECORD and len(judge.asked) == 6 == len(set(judge.asked))
    longer, shorter = (0, 1) if len(TEXTS[0]) > len(TEXTS[1]) else (1, 0)
    assert verdict.beats(longer, shorter) == pytest.approx(0.6)  # its liking for the first place is gone
    assert verdict.beats(shorter, longer) == pytest.approx(0.4)
    assert verdict.scores.index(max(verdict.scores)) == max(range(3), key=lambda n: len(TEXTS[n]))


def test_a_function_of_answers_and_prompts_is_a_judge() -> None:
    def shorter(answers: Any, prompts: Any) -> list[float]:
        assert list(prompts) == [str(ONE)] * len(answers)
        return [-float(len(answer)) for answer in answers]

    ((scored, verdict),) = Asked(shorter, "shorter")([RECORD])
    assert verdict is not None and verdict.scores == [-float(len(text)) for text in TEXTS]
    assert scored.candidates[0].scores[0].name == "shorter"


def test_a_score_that_is_not_finite_is_no_verdict_and_a_wrong_probability_is_refused() -> None:
    (_, verdict), (_, good) = Asked(lambda answers, prompts: [1.0, math.nan, 2.0, 0.0, 0.0, 0.0], "f")([RECORD, RECORD])
    assert verdict is None and good is not None

    class Wrong:
        def compare(self, first: Any, second: Any, prompts: Any) -> list[float]:
            return [1.5] * len(first)

    with pytest.raises(DataError, match="expected 6 probabilities"):
        Asked(Wrong(), "wrong")([RECORD])
    with pytest.raises(ConfigError, match="score or compare"):
        Asked(3, "three")  # type: ignore[arg-type]


def test_a_comparison_that_could_not_be_read_is_no_verdict_on_its_record() -> None:
    class Mumbling:
        def compare(self, first: Any, second: Any, prompts: Any) -> list[float]:
            assert len(first) == 12
            return [math.nan, *[1.0] * 5, *[0.5] * 6]

    (_, verdict), (_, good) = Asked(Mumbling(), "mumbling")([RECORD, RECORD])
    assert verdict is None and good is not None and good.scores == [0.5] * 3


def test_who_was_not_asked_says_nothing() -> None:
    for ask in (lambda: Nothing().scores, lambda: Nothing().beats(0, 1)):
        with pytest.raises(ConfigError, match="nobody was asked"):
            ask()


class Length:
    info = RewardInfo("length", "1", "none", (0.0, 99.0), media="text")

    def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
        return torch.tensor([float(len(item)) for item in media])


def test_an_ensemble_is_asked_as_any_reward_and_its_verdict_is_the_sum() -> None:
    judge = Ensemble([Member("words", rewards.load("words"), 2.0), Member("length", Length(), 0.1)])
    ((scored, verdict),) = Asked(judge, "ensemble", pair_scale=3.0)([RECORD])
    own = rewards.load("words").score(TEXTS, [str(ONE)] * 3).tolist()
    expected = [2 * score + 0.1 * len(text) for score, text in zip(own, TEXTS, strict=True)]
    assert verdict is not None and verdict.scores == pytest.approx(expected)
    assert verdict.beats(0, 1) == pytest.approx(1 / (1 + math.exp(-3 * (expected[0] - expected[1]))))
    assert [score_of(candidate, "ensemble") for candidate in scored.candidates] == verdict.scores
    assert scored.candidates[0].scores[0].version == judge.info.version

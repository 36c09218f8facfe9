"""Rewards measured on labelled pairs: what cannot be scored is counted, judges are asked to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from diffpref import rewards
from diffpref.core.contracts import Candidate, Judgement, Record, RewardInfo
from diffpref.core.errors import DataError
from diffpref.data import pair_view
from diffpref.evaluation.reward_quality import measure, score_pairs

LENGTHS = [("abc", "a"), ("ab", "abcd"), ("abcdef", "ab"), ("a", "abc")]
RECORDS = [
    Record(str(i), "p", tuple(Candidate(text=t) for t in texts), (Judgement(0, 1, 1.0),), meta={"answer": texts[0]})
    for i, texts in enumerate(LENGTHS)
]
PAIRS = pair_view(RECORDS, "all_pairs", None)


class Length:
    """The longer text is the better one; texts of six letters cannot be read."""

    info = RewardInfo("length", "1", "Apache-2.0", (0.0, 10.0), pair_scale=1.0, media="text")

    def score(self, media: Sequence[str], prompts: Sequence[str], metadata: Any = None) -> torch.Tensor:
        return torch.tensor([math.nan if len(text) == 6 else float(len(text)) for text in media])


class Only:
    """Compares lengths and scores nothing."""

    info = RewardInfo("only", "1", "Apache-2.0", (0.0, 1.0), media="text")

    def compare(self, first: Sequence[str], second: Sequence[str], prompts: Sequence[str]) -> torch.Tensor:
        pairs = zip(first, second, strict=True)
        return torch.tensor([math.nan if len(a) == 6 else float(len(a) > len(b)) for a, b in pairs])


@pytest.mark.parametrize("reward", [Length(), Only()])
def test_pairs_without_a_finite_score_are_left_out_and_counted(reward: Any) -> None:
    found = measure(score_pairs(reward, RECORDS, PAIRS))
    assert (found.pairs, found.unscored) == (3, 1)
    assert found.decided == pytest.approx(1 / 3) and found.calibration_error is not None
    with pytest.raises(DataError, match="none of 1 pairs has finite scores"):
        score_pairs(reward, RECORDS, [PAIRS[2]])


def test_groups_keep_their_own_pairs() -> None:
    found = measure(score_pairs(Length(), RECORDS, PAIRS, lambda record: "even" if int(record.id) % 2 == 0 else "odd"))
    assert {name: one.pairs for name, one in found.by_group.items()} == {"even": 1, "odd": 2}
    assert found.by_group["even"].decided == 1 and found.by_group["odd"].decided == 0
    assert found.to_json()["unscored"] == 1


def test_a_reward_that_reads_metadata_is_told_each_records() -> None:
    found = measure(score_pairs(rewards.load("program", program="exact_match"), RECORDS, PAIRS))
    assert found.pairs == 4 and found.decided == 1

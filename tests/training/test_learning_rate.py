"""Learning rates are functions of the update's number."""

from __future__ import annotations

import math
from typing import Any

import pytest

from diffpref.config import Optim
from diffpref.training.learning_rate import learning_rate


def rates(steps: int = 10, **options: Any) -> list[float]:
    optim = Optim(learning_rate=2.0, **options)
    return [learning_rate(optim, step, steps) for step in range(steps)]


def test_constant_is_constant_after_a_linear_warm_up() -> None:
    assert rates() == [2.0] * 10
    assert rates(warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, *[2.0] * 6]


def test_linear_and_cosine_start_at_the_full_rate_and_would_reach_zero_after_the_last_update() -> None:
    assert rates(schedule="linear") == pytest.approx([2.0 - 0.2 * step for step in range(10)])
    assert rates(schedule="cosine") == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(10)])
    assert learning_rate(Optim(learning_rate=2.0, schedule="cosine"), 10, 10) == 0.0
    assert rates(schedule="linear", warmup_steps=5) == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0, 1.6, 1.2, 0.8, 0.4])


def test_a_warm_up_longer_than_the_run_is_cut_short() -> None:
    assert rates(steps=3, warmup_steps=4, schedule="linear") == [0.5, 1.0, 1.5]

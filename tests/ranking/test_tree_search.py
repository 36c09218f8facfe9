"""Search over reasoning steps, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from diffpref.ranking import backed_up, node_value, prior, puct


def test_what_is_worth_looking_at_next() -> None:
    """The specification's number: Q 0.4, a step of four tokens of -3 nats, visited twice of nine times."""
    assert puct(0.4, prior(-3.0, 4), parent_visits=9, visits=2) == pytest.approx(0.988410712, abs=5e-10)
    assert puct(0.4, 1.0, parent_visits=9, visits=2, weight=0.0) == 0.4
    assert prior(-3.0, 4, exponent=0.0) == pytest.approx(math.exp(-3))


def test_a_step_never_visited_comes_before_one_visited_often() -> None:
    assert puct(0.0, 0.5, parent_visits=16, visits=0) > puct(0.3, 0.5, parent_visits=16, visits=16)


def test_confidence_counts_for_less_in_the_depth() -> None:
    assert node_value(0.8, 2, 0.1) == 0.8 and node_value(0.8, 5, 0.1) == 0.4
    assert node_value(0.0, 2, 0.1) == 0.1


def test_a_node_is_worth_its_steps_by_their_visits() -> None:
    values, total = backed_up([(0.5, 0.5, 3), (-1.0, 0.4, 0)], discount=0.5)
    assert values == [0.75, -0.8]
    assert total == pytest.approx((3 * 0.75 + 1 * -0.8) / 4)
    assert backed_up([]) == ([], 0.0)

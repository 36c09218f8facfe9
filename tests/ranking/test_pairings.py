"""Pair selection and ranks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.ranking import PAIRINGS, adjacent, all_pairs, best_vs_worst, num_unscored, order, ranks

scores = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=16), max_size=8)


def test_best_vs_worst_takes_the_extremes():
    assert best_vs_worst([0.3, 0.1, 0.9, 0.5]) == [(2, 1)]


def test_all_pairs_keeps_what_differs_enough():
    assert all_pairs([1.0, 3.0, 2.5], min_gap=0.5) == [(1, 2), (1, 0), (2, 0)]
    assert all_pairs([1.0, 3.0, 2.5], min_gap=0.6) == [(1, 0), (2, 0)]


def test_adjacent_compares_neighbours_of_the_ranking():
    assert adjacent([1.0, 3.0, 2.5, 2.5]) == [(1, 2), (3, 0)]


def test_ranks_start_at_zero_and_ties_share_one():
    assert ranks([0.1, math.nan, 0.7, 0.1, 0.0]) == [1, -1, 0, 1, 3]


def test_scores_that_are_not_finite_are_counted():
    assert num_unscored([1.0, math.nan, math.inf, 0.0]) == 2
    assert order([math.inf, 1.0]) == [1]


@pytest.mark.parametrize("pairing", list(PAIRINGS))
@given(values=scores, min_gap=st.floats(0, 10))
@settings(max_examples=60, deadline=None)
def test_every_pairing_puts_the_better_first_and_skips_ties_and_nan(pairing, values, min_gap):
    for winner, loser in PAIRINGS.get(pairing)(values, min_gap=min_gap):
        assert math.isfinite(values[winner]) and math.isfinite(values[loser])
        assert values[winner] > values[loser]
        assert values[winner] - values[loser] >= min_gap


@pytest.mark.parametrize("pairing", list(PAIRINGS))
@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [math.nan, 1.0]])
def test_no_pair_where_nothing_is_better(pairing, values):
    assert PAIRINGS.get(pairing)(values) == []


@given(values=scores)
@settings(max_examples=60, deadline=None)
def test_a_rank_is_the_number_of_better_scores(values):
    for value, rank in zip(values, ranks(values), strict=True):
        finite = [other for other in values if math.isfinite(other)]
        assert rank == (sum(other > value for other in finite) if math.isfinite(value) else -1)

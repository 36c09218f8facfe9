"""What loops choose by: win rates, rejection sampling, the curriculum. The golden numbers are the specification's."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.ranking import (
    acceptance,
    both_orders,
    curriculum,
    first_round,
    mean_margins,
    preference_matrix,
    reject_sample,
    tournament,
    win_rates,
)

TABLE = [[0.5, 0.7, 0.4], [0.3, 0.5, 0.8], [0.6, 0.2, 0.5]]  # of the entry 'dno'
finite = st.lists(st.floats(-50, 50), min_size=1, max_size=7)


# ---------------------------------------------------------------- win rates


def test_win_rates_with_and_without_the_candidate_itself():
    assert win_rates(TABLE) == pytest.approx([0.533333, 0.533333, 0.433333], abs=1e-6)
    assert win_rates(TABLE, include_self=False) == pytest.approx([0.55, 0.55, 0.4], abs=1e-12)


def test_gpo_takes_the_mean_of_score_differences():
    table = [[0, 1.2, -0.4], [-1.2, 0, 0.9], [0.4, -0.9, 0]]
    expected = [0.266667, -0.1, -0.166667]
    assert mean_margins(table) == pytest.approx(expected, abs=1e-6)
    assert mean_margins(table, antisymmetrise=True) == pytest.approx([2 * x for x in expected], abs=2e-6)


def test_a_probability_is_the_sigmoid_of_a_scaled_difference():
    matrix = preference_matrix([2.0, -1.0, 800.0, -800.0], scale=0.5)
    assert matrix[0][1] == pytest.approx(1 / (1 + math.exp(-1.5)), rel=1e-12)
    assert matrix[2][3] == 1.0 and matrix[3][2] == pytest.approx(0.0, abs=1e-300)


@given(scores=finite, scale=st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_probabilities_of_both_sides_add_up_to_one_and_order_as_the_scores(scores, scale):
    matrix = preference_matrix(scores, scale=scale)
    for i, j in itertools.product(range(len(scores)), repeat=2):
        assert matrix[i][j] + matrix[j][i] == pytest.approx(1.0)
        if scores[i] > scores[j]:
            assert win_rates(matrix)[i] >= win_rates(matrix)[j]


def test_a_judge_that_likes_the_first_place_is_made_fair_by_asking_twice():
    fair = preference_matrix([0.3, 1.4, -0.2])
    biased = [[p + 0.1 for p in row] for row in fair]  # whoever is shown first gets 0.1 more
    again = both_orders(biased)
    for row, expected in zip(again, fair, strict=True):
        assert row == pytest.approx(expected, abs=1e-12)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ShapeError, match="K x K"):
        win_rates([[0.5, 0.5]])
    with pytest.raises(ConfigError, match="at least 2"):
        win_rates([[0.5]], include_self=False)


# ---------------------------------------------------------------- rejection sampling


def test_the_sampler_of_the_specification():
    assert reject_sample([0, 1, 2, 3], 2, 0.5, itertools.repeat(0.5)) == [3, 2]
    thresholds = [acceptance(r, 3, 0.5) for r in (0, 1, 2, 3)]
    assert thresholds == pytest.approx([0.0025, 0.0183, 0.1353, 1.0], abs=5e-5)
    assert [acceptance(r, 2, 0.5) for r in (0, 1, 2)] == pytest.approx([0.0183, 0.1353, 1.0], abs=5e-5)


def test_a_pass_stops_as_soon_as_there_are_enough():
    drawn = iter([0.0, 0.0, 0.9])  # 0 < every threshold: the first two are accepted, and no third number is read
    assert reject_sample([1.0, 2.0, 3.0], 2, 1.0, drawn) == [0, 1]
    assert next(drawn) == 0.9


@given(rewards=st.lists(st.floats(-9, 9), min_size=1, max_size=7, unique=True), data=st.data())
@settings(max_examples=60, deadline=None)
def test_small_beta_takes_the_best_and_large_beta_takes_all_in_order(rewards, data):
    num = data.draw(st.integers(1, len(rewards)))
    draws = random.Random(0)
    uniform = iter(draws.random, None)
    best_first = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    assert reject_sample(rewards, num, 0.0, uniform) == best_first[:num]
    assert reject_sample(rewards, num, math.inf, uniform) == list(range(num))


def test_the_share_accepted_in_a_pass_is_the_mean_of_the_probabilities():
    rewards = [0.0, 0.4, 1.0, 1.3]
    draws, beta, repeats = random.Random(1), 0.7, 4000
    accepted = sum(reject_sample(rewards, 1, beta, iter(draws.random, None)) == [0] for _ in range(repeats))
    assert accepted / repeats == pytest.approx(acceptance(0.0, 1.3, beta), abs=0.02)


def test_equal_candidates_count_once():
    assert reject_sample([1.0, 1.0, 0.5], 2, 0.0, itertools.repeat(0.5), contents=["a", "a", "b"]) == [0, 2]
    with pytest.raises(DataError, match="2 different ones"):
        reject_sample([1.0, 1.0, 0.5], 3, 0.5, itertools.repeat(0.5), contents=["a", "a", "b"])


@pytest.mark.parametrize(("rewards", "num", "beta", "error"), [
    ([1.0], 1, -0.1, ConfigError), ([1.0], 1, math.nan, ConfigError), ([1.0], 0, 1.0, ConfigError),
    ([1.0, math.nan], 1, 1.0, DataError), ([], 1, 1.0, DataError),
])  # fmt: skip
def test_what_cannot_be_sampled_is_refused(rewards, num, beta, error):
    with pytest.raises(error):
        reject_sample(rewards, num, beta, itertools.repeat(0.5))


def test_first_round_gives_half_and_a_tournament_one_game_less_than_players():
    assert first_round([3, 1, 2]) == [(3, 1)]
    games = tournament(list(range(8)), lambda one, other: one > other)
    assert len(games) == 7 and all(winner > loser for winner, loser in games)
    assert games[-1] == (7, 3)  # the final


# ---------------------------------------------------------------- the curriculum


@given(scores=st.lists(st.floats(-5, 5), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_curriculum_goes_from_wide_to_narrow_and_the_best_is_always_chosen(scores):
    stages = curriculum(scores)
    assert len(stages) == len(scores) - 1
    gaps = [scores[pair[0]] - scores[pair[1]] for pair in stages if pair]
    assert gaps == sorted(gaps, reverse=True) and all(gap > 0 for gap in gaps)
    assert all(scores[pair[0]] == max(scores) for pair in stages if pair)
    losers = [pair[1] for pair in stages if pair]
    assert len(losers) == len(set(losers))  # every pair is seen once


def test_what_has_no_score_is_in_no_stage():
    assert curriculum([1.0, math.nan, 2.0]) == [(2, 0), None]
    assert curriculum([math.nan, math.nan]) == [None]

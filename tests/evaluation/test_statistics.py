"""Paired statistics: literal numbers of the specification, and the properties that hold for any scores."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.evaluation.statistics import (
    _draws,
    bootstrap_interval,
    difference,
    sign_test,
    wilson_interval,
    win_rate,
)

# Golden `winrate_bootstrap` of methods/rewards_data_eval.md, section 4.
A, B = [0.3, 0.5, 0.2, 0.7, 0.7, 0.1], [0.2, 0.6, 0.2, 0.4, 0.9, 0.0]
SCORES = st.lists(st.tuples(*[st.sampled_from([-1.5, 0.0, 0.25, 0.5, 2.0])] * 2), min_size=1, max_size=30)
FAST = {"num_draws": 200}


def test_win_rate_counts_ties_one_half():
    result = win_rate(A, B)
    assert (result.wins, result.ties, result.losses, result.dropped) == (3, 1, 2, 0)
    assert result.rate == pytest.approx(0.5833333333, abs=1e-10)


def test_resampling_gives_the_golden_interval():
    points = (np.sign(np.array(A) - np.array(B)) + 1) / 2
    draws = _draws([p[None] for p in points], np.mean, 2000, np.random.default_rng(7))
    assert np.percentile(draws, [2.5, 97.5]) == pytest.approx([0.25, 0.9166666667], abs=1e-9)


def test_wilson_interval_gives_the_golden_numbers():
    interval = wilson_interval(3.5 / 6, 6)
    assert (interval.low, interval.high) == pytest.approx((0.241078211, 0.860532741), abs=1e-9)


@pytest.mark.parametrize(("wins", "losses", "p"), [(3, 2, 1.0), (0, 0, 1.0), (5, 0, 0.0625), (9, 1, 0.021484375)])
def test_sign_test_gives_exact_binomial_tails(wins, losses, p):
    assert sign_test(wins, losses) == p == sign_test(losses, wins)


def test_sign_test_does_not_overflow_on_thousands_of_pairs():
    assert 0 < sign_test(2600, 600) < 1e-200


def test_half_width_at_500_pairs_is_4_4_points():
    result = win_rate([1.0, 0.0] * 250, [0.0, 1.0] * 250)
    assert (result.high - result.low) / 2 == pytest.approx(0.044, abs=0.002)


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_seeds_of_one_prompt_are_resampled_together():
    values = np.repeat([0.0, 1.0], 50)  # two prompts of fifty equal seeds: two independent observations, not a hundred
    alone, clustered = bootstrap_interval(values), bootstrap_interval(values, groups=[0] * 50 + [1] * 50)
    assert alone.high - alone.low < 0.25
    assert (clustered.low, clustered.high) == (0.0, 1.0)


def test_groups_of_one_change_nothing():
    assert bootstrap_interval(A, groups=list("abcdef")) == bootstrap_interval(A)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 3)])
def test_shortcut_for_means_equals_resampled_values(sizes):
    groups = np.repeat(np.arange(3), sizes).tolist()
    mean = bootstrap_interval(A, np.mean, groups=groups, **FAST)
    plain = bootstrap_interval(A, lambda x, axis: np.mean(x, axis=axis), groups=groups, **FAST)
    assert (mean.low, mean.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_median_is_a_statistic_too():
    interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 100.0], np.median)
    assert interval.estimate == 3.0 and interval.low == 1.0 and interval.high == 100.0


def test_difference_of_shares_is_in_points():
    result = difference([True, True, False, True], [False, True, False, False])
    assert result.estimate == 50.0 and result.low >= 0.0 and result.high <= 100.0


def test_difference_of_scores_keeps_their_unit():
    assert difference([21.5, 22.5], [21.0, 22.0], scale=1.0).estimate == 0.5


def test_pairs_without_finite_scores_are_dropped_and_counted():
    result = win_rate([1.0, float("nan"), 2.0, 3.0], [0.0, 1.0, float("inf"), 4.0], groups=["a", "b", "c", "a"])
    assert (result.wins, result.losses, result.dropped, result.rate) == (1, 1, 2, 0.5)


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    values = np.random.default_rng(1).normal(size=60)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_comparison_with_itself_is_exactly_one_half():
    result = win_rate(A, A)
    assert (result.rate, result.low, result.high, result.ties) == (0.5, 0.5, 0.5, 6)


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_swapping_the_models_gives_one_minus_the_rate(pairs):
    a, b = np.array(pairs).T
    one, other = win_rate(a, b, **FAST), win_rate(b, a, **FAST)
    assert one.rate + other.rate == pytest.approx(1.0, abs=1e-12)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from([np.mean, np.median]))
def test_interval_contains_the_estimate(values, statistic):
    interval = bootstrap_interval(values, statistic, **FAST)
    assert interval.low <= interval.estimate <= interval.high


@settings(max_examples=60, deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_order_of_the_pairs_changes_nothing(pairs, random):
    rows = [(a, b, i % 7) for i, (a, b) in enumerate(pairs)]
    shuffled = random.sample(rows, len(rows))
    results = [
        win_rate(*zip(*[(a, b) for a, b, _ in r], strict=True), groups=[g for *_, g in r], **FAST)
        for r in (rows, shuffled)
    ]
    assert results[0] == results[1]


@settings(max_examples=30, deadline=None)
@given(SCORES)
def test_duplicating_every_pair_leaves_the_estimate(pairs):
    a, b = np.array(pairs).T
    assert win_rate(np.tile(a, 2), np.tile(b, 2), **FAST).rate == pytest.approx(win_rate(a, b, **FAST).rate, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(SCORES)
def test_increasing_transform_of_the_scores_leaves_the_win_rate(pairs):
    a, b = np.array(pairs).T
    assume(len(a) > 1)
    assert win_rate(np.exp(a), np.exp(b), **FAST) == win_rate(a, b, **FAST)


def test_mistakes_are_told():
    with pytest.raises(ShapeError, match=r"equally many, got \[2, 3\]"):
        win_rate([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match="equally many"):
        win_rate([1.0], [2.0], groups=["a", "b"])
    with pytest.raises(ShapeError, match="one-dimensional"):
        bootstrap_interval(np.ones((2, 2)))
    with pytest.raises(DataError, match="no pairs"):
        win_rate([], [])
    with pytest.raises(DataError, match="none of 2 pairs"):
        win_rate([float("nan")] * 2, [0.0, 1.0])
    with pytest.raises(DataError, match="1 of 2 values are not finite"):
        bootstrap_interval([1.0, float("nan")])
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval([1.0], level=95)

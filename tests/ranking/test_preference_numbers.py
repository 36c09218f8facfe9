"""Calibrated rewards, shares, fronts, votes, advantages, step pairs, segments, curation: the documented numbers."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError, ShapeError
from diffpref.ranking import (
    aggregated_advantages,
    agreed_label,
    buffered_advantages,
    calibrated_rewards,
    curated_distribution,
    curriculum_floors,
    dynamic_thresholds,
    fronts,
    group_advantages,
    held_most,
    latent_segments,
    majority_vote,
    parts_of,
    rarity_weights,
    smoothed_preference,
    step_pair,
    whole_label,
    win_shares,
)

P, R = [0.5, 0.3, 0.2], [0.0, 1.0, 2.0]
scores = st.lists(st.floats(-5, 5), min_size=2, max_size=6)
fast = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize("room", ["advantages", "calibration", "curation", "curriculum", "segments", "steps"])
def test_the_examples_run(room: str) -> None:
    result = doctest.testmod(importlib.import_module(f"diffpref.ranking.{room}"))
    assert result.attempted > 0 and result.failed == 0


def test_capo_s_calibrated_rewards_and_fronts() -> None:
    assert calibrated_rewards([1.0, 0.0, -0.5]) == pytest.approx([0.77431653, 0.44570038, 0.2799831], abs=5e-8)
    assert fronts([[0.9, 0.2], [0.5, 0.5], [0.4, 0.4], [0.1, 0.9], [0.2, 0.1]]) == ([0, 1, 3], [3, 4])


@fast
@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=6))
def test_nobody_on_the_upper_front_is_dominated_and_nobody_on_the_lower_dominates(rows: list[list[int]]) -> None:
    def dominates(a: list[int], b: list[int]) -> bool:
        return a[0] >= b[0] and a[1] >= b[1] and (a[0] > b[0] or a[1] > b[1])

    upper, lower = fronts(rows)
    assert upper == [i for i in range(len(rows)) if not any(dominates(other, rows[i]) for other in rows)]
    assert lower == [i for i in range(len(rows)) if not any(dominates(rows[i], other) for other in rows)]
    assert upper and lower


def test_rankdpo_s_shares_of_wins() -> None:
    table = [
        [0.28, 0.31, 0.25, 0.29],
        [10.2, 11.5, 9.1, 11.5],
        [21.3, 22.0, 20.5, 21.9],
        [0.71, 0.66, 0.80, 0.74],
        [0.5, 1.2, -0.3, 0.9],
    ]
    assert win_shares(table) == pytest.approx([1 / 3, 11 / 15, 1 / 5, 2 / 3])
    images = [[22.1, 0.9, 0.71, 0.28, 11.0], [21.0, 1.2, 0.8, 0.25, 12.5], [23.0, -0.1, 0.65, 0.3, 9.0]]
    models = list(zip(*images, [20.0, 0.3, 0.8, 0.21, 10.0], strict=True))
    assert win_shares(models) == pytest.approx([0.6, 0.6666666667, 0.4, 0.2666666667])
    assert win_shares(models, half_ties=True) == pytest.approx([0.6, 0.7, 0.4, 0.3])


@fast
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4))
def test_shares_with_half_ties_add_up_to_half_the_candidates_and_feel_no_unit(rows: list[list[int]]) -> None:
    assert sum(win_shares(rows, half_ties=True)) == pytest.approx(1.5)
    assert win_shares([[math.exp(value) for value in row] for row in rows]) == win_shares(rows)


def test_shares_refuse_what_they_cannot_compare() -> None:
    with pytest.raises(ShapeError, match="every reward model scores every candidate"):
        win_shares([[1.0, 2.0], [1.0]])
    for empty in ([], [[1.0]]):
        with pytest.raises(ConfigError, match="at least 2"):
            win_shares(empty)


@fast
@given(scores, st.data())
def test_a_vote_is_antisymmetric_and_feels_no_monotone_rescaling(first: list[float], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.floats(-5, 5), min_size=len(first), max_size=len(first)))
    vote = majority_vote(first, second)
    assert vote == -majority_vote(second, first)
    assert vote == majority_vote([3 * value for value in first], [3 * value for value in second])
    if len(first) % 2 and all(a != b for a, b in zip(first, second, strict=True)):
        assert vote


def test_one_reward_votes_for_its_own_order() -> None:
    assert [majority_vote([a], [b]) for a, b in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))] == [1, -1, 0]


@pytest.mark.parametrize(
    ("chosen", "rejected", "probability", "weight"),
    [
        (0.2231, 0.2104, 0.5190506334, 0.3810126687),
        (0.2201, 0.2200, 0.5001500776, 0.0030015527),
        (0.28201571106910706, 0.11543526500463486, 0.7310585786, 4.6211715726),
        (0.2, 0.2, 0.5, 0.0),
        (0.2213, 0.2035, 0.5266884304, 10 * (2 * 0.5266884304 - 1)),
    ],
)
def test_smpo_s_soft_label(chosen: float, rejected: float, probability: float, weight: float) -> None:
    found = smoothed_preference(chosen, rejected)
    assert found == pytest.approx(probability, abs=5e-11)
    assert 10 * (2 * found - 1) == pytest.approx(weight, abs=2e-9)


@pytest.mark.parametrize(("gap", "expected"), [(1e6, 1.0), (-1e6, 0.0), (1e300, 1.0), (-1e300, 0.0)])
def test_smpo_s_soft_label_of_scores_of_another_scale_does_not_overflow(gap: float, expected: float) -> None:
    assert smoothed_preference(gap, 0.0) == expected


def test_smpo_s_soft_labels_of_both_directions_sum_to_one() -> None:
    for gap in (0.001, 0.1, 1.0, 5.0):
        assert smoothed_preference(gap, 0.0) + smoothed_preference(0.0, gap) == pytest.approx(1.0, abs=1e-15)


def test_rare_gaps_weigh_more() -> None:
    gaps = [0.1] * 6 + [0.55] * 3 + [1.0]
    assert rarity_weights(gaps, num_bins=3) == pytest.approx([1.0] * 6 + [2.0] * 3 + [6.0])
    assert rarity_weights(gaps, num_bins=3, top=0.72)[-1] == pytest.approx(0.72 / 0.1)
    assert rarity_weights([0.5, 0.5]) == [1.0, 1.0]


def test_curriculum_dpo_s_floors_are_nested_and_end_with_all_pairs() -> None:
    gaps = [0.02, 0.3, 0.11, 1.22]
    floors = curriculum_floors(gaps)
    assert floors == pytest.approx([0.98, 0.74, 0.5, 0.26, 0.02]) and floors[-1] == min(gaps)
    sizes = [sum(gap >= floor for gap in gaps) for floor in floors]
    assert sizes == sorted(sizes) and sizes[-1] == 4
    assert curriculum_floors(gaps, num_chunks=2) == [0.02]


# ---------------------------------------------------------------- advantages


def test_flow_grpo_s_advantages() -> None:
    rewards, prompts = [1.0, 0.0, 0.5, 0.7], "aabb"
    expected = [1.3732284, -1.3732284, -0.27464568, 0.27464568]
    assert group_advantages(rewards, prompts) == pytest.approx(expected, abs=5e-8)
    own = [0.99980004, -0.99980004, -0.999001, 0.999001]
    assert group_advantages(rewards, prompts, global_std=False) == pytest.approx(own, abs=5e-8)


@fast
@given(scores)
def test_advantages_of_a_prompt_add_up_to_zero_and_are_zero_for_equal_rewards(rewards: list[float]) -> None:
    for function in (group_advantages, lambda r, p: aggregated_advantages([r], p)):
        prompts = ["a"] * len(rewards)
        assert sum(function(rewards, prompts)) == pytest.approx(0, abs=1e-6)
        assert function([2.0] * len(rewards), prompts) == [0.0] * len(rewards)


def test_aggregated_advantages_normalise_each_reward_before_they_are_added() -> None:
    one, other = [1.0, 0.0, 0.5], [100.0, 300.0, 200.0]
    both = aggregated_advantages([one, other], "aaa", weights=[1.0, 0.5])
    assert both == pytest.approx([1.0 - 0.5, -1.0 + 0.5, 0.0], abs=1e-6)
    with pytest.raises(ShapeError, match="2 reward models have 1 weights"):
        aggregated_advantages([one, other], "aaa", weights=[1.0])
    with pytest.raises(ShapeError, match="3 rewards have 2 prompts"):
        group_advantages(one, "aa")


def test_buffered_advantages_compare_with_the_prompt_s_own_past_once_it_is_long_enough() -> None:
    past = {"a": [float(i) for i in range(31)]}
    found, after = buffered_advantages([15.0, 100.0, 3.0], ["a", "a", "b"], past, size=32)
    kept = [*range(1, 31), 15.0, 100.0]
    assert after["a"] == kept and after["b"] == [3.0] and past["a"] == [float(i) for i in range(31)]
    mean = sum(kept) / 32
    deviation = math.sqrt(sum((value - mean) ** 2 for value in kept) / 32)
    assert found[:2] == pytest.approx([(15 - mean) / deviation, (100 - mean) / deviation], rel=1e-5)
    batch = [15.0, 100.0, 3.0]
    spread = math.sqrt(sum((value - 118 / 3) ** 2 for value in batch) / 3)
    assert found[2] == pytest.approx((3 - 118 / 3) / spread, rel=1e-5)


# ---------------------------------------------------------------- steps and segments


def test_spo_s_pairs_of_a_step() -> None:
    columns = zip([1.0, 0.2], [0.1, 0.1], [-0.5, 0.3], strict=True)
    assert [step_pair(candidates, threshold=0.3) for candidates in columns] == [(0, 2), None]
    assert step_pair([0.2, 0.1, 0.3], threshold=0.0) == (2, 1)
    assert step_pair([1.0, 1.0], threshold=0.0) is None
    assert step_pair([float("nan"), 1.0], threshold=0.0) is None


def test_thresholds_rise_from_the_lowest_to_the_highest_with_the_deviation() -> None:
    assert dynamic_thresholds([0.4, 0.1, 0.2], lowest=0.35, highest=0.5) == pytest.approx([0.5, 0.35, 0.4])


def test_densedpo_s_segments_of_latent_frames() -> None:
    long = latent_segments(121, fps=24)
    assert long == [0] * 7 + [1] * 6 + [2] * 6 + [3] * 6 + [4] * 6
    assert latent_segments(49, fps=8) == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert latent_segments(6, fps=2, temporal_factor=1, causal=False) == [0, 0, 1, 1, 2, 2]
    assert latent_segments(8, fps=4, temporal_factor=4, causal=False) == [0, 1]
    with pytest.raises(ConfigError, match="hold no frame"):
        latent_segments(9, fps=0.5)


def test_a_judge_that_contradicts_itself_says_tie() -> None:
    consistent = {(1, -1): 1, (-1, 1): -1, (0, 0): 0}
    for asked, swapped in itertools.product((1, 0, -1), repeat=2):
        assert agreed_label(asked, swapped) == consistent.get((asked, swapped), 0)
    assert [whole_label(labels) for labels in ([1, 0, -1], [1, 1, -1], [-1, 0])] == [0, 1, -1]


# ---------------------------------------------------------------- curation


@pytest.mark.parametrize(
    ("candidates", "real", "expected"),
    [
        (2, None, [0.35452301, 0.34159054, 0.30388645]),
        (4, None, [0.26155819, 0.3378515, 0.40059031]),
        (4, P, [0.3807791, 0.31892575, 0.30029515]),
    ],
)
def test_curated_retraining_s_next_distribution(
    candidates: int, real: list[float] | None, expected: list[float]
) -> None:
    found = curated_distribution(P, R, num_candidates=candidates, real=real)
    assert found == pytest.approx(expected, abs=5e-9) and sum(found) == pytest.approx(1)


def test_curation_s_limits() -> None:
    assert curated_distribution(P, R, num_candidates=1) == pytest.approx(P)
    assert curated_distribution(P, [1.0, 1.0, 1.0], num_candidates=3) == pytest.approx(P)
    assert curated_distribution(P, R, num_candidates=2, real=P, synthetic_weight=0.0) == P
    mean = sum(p * math.exp(r) for p, r in zip(P, R, strict=True))
    tilted = [p * math.exp(r) / mean for p, r in zip(P, R, strict=True)]
    distances = []
    for candidates in (2, 4, 8):
        found = curated_distribution(P, R, num_candidates=candidates)
        gain = sum(q * math.exp(r) for q, r in zip(found, R, strict=True)) - mean
        spread = sum(p * (math.exp(r) - mean) ** 2 for p, r in zip(P, R, strict=True))
        assert gain >= (candidates - 1) / candidates * spread / math.exp(max(R)) - 1e-12
        distances.append(max(abs(a - b) for a, b in zip(found, tilted, strict=True)))
    assert distances == sorted(distances, reverse=True)
    with pytest.raises(ShapeError, match="3 outcomes need as many"):
        curated_distribution(P, [1.0], num_candidates=2)


def test_frames_that_are_shown_find_the_parts_that_hold_them() -> None:
    halves = [(0.0, 0.5), (0.5, 1.0), (1.0, math.inf)]
    assert parts_of(range(6), 4.0, halves) == [0, 0, 1, 1, 2, 2]
    assert parts_of([1, 3, 5], 4.0, halves) == [0, 1, 2]  # every second frame, from the second on
    assert parts_of([0, 2, 9], 4.0, [(0.25, 0.75), (2.0, 2.5)]) == [-1, 0, 1]
    assert parts_of([20, 21], 30.0, [(0.0, 0.7), (0.7, 1.0)]) == [0, 1]  # 0.7 * 30 is a little below 21


def test_a_latent_frame_has_the_part_of_most_of_its_frames_the_first_of_two() -> None:
    assert held_most([0, 0, 0, 0, 1], temporal_factor=4, causal=True) == [0, 0]
    assert held_most([0, 0, 0, 1, 1], temporal_factor=4, causal=True) == [0, 0]
    assert held_most([0, 0, 1, 1, 1], temporal_factor=4, causal=True) == [0, 1]
    assert held_most([-1, -1, 0, 0, 1, 1, 1, 0], temporal_factor=4, causal=False) == [-1, 1]
    assert held_most([2, 1, 0], temporal_factor=1, causal=False) == [2, 1, 0]
    seconds = [(float(second), float(second + 1)) for second in range(4)] + [(4.0, math.inf)]
    long = held_most(parts_of(range(121), 24.0, seconds), temporal_factor=4, causal=True)
    assert long == latent_segments(121, fps=24)  # the specification's example, its last frame merged

"""Several rewards as one, how far they agree, and what a gap of scores is worth."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.ranking import (
    COMBINATIONS,
    Calibration,
    accuracy_with_ties,
    agreed_pairs,
    agreement,
    calibrate,
    calibration_error,
    combine,
    disagreement,
    fitted_scale,
    log_loss,
    ranks,
    reliability,
    smoothed_preference,
    standardised,
    win_probability,
    win_shares,
)

NAN = math.nan
fast = settings(max_examples=60, deadline=None, derandomize=True)
matrices = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(st.integers(-5, 5).map(float), min_size=size, max_size=size), min_size=1, max_size=4)
)
SYN_PIC = [[22.1, 0.9, 0.71, 0.28, 11.0], [21.0, 1.2, 0.8, 0.25, 12.5], [23.0, -0.1, 0.65, 0.3, 9.0]]
SYN_PIC = [*SYN_PIC, [20.0, 0.3, 0.8, 0.21, 10.0]]


@pytest.mark.parametrize("module", ["agreement", "calibrated", "ensembles", "reliability"])
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"diffpref.ranking.{module}"))
    assert result.attempted > 0 and result.failed == 0


# ---------------------------------------------------------------- ensembles


def test_golden_syn_pic_aggregation() -> None:
    by_reward = [list(column) for column in zip(*SYN_PIC, strict=True)]
    strict = win_shares(by_reward)
    assert strict == pytest.approx([0.6, 0.6666666667, 0.4, 0.2666666667])
    assert [round(15 * share) for share in strict] == [9, 10, 6, 4]
    assert combine(by_reward, "win_fraction") == pytest.approx([0.6, 0.7, 0.4, 0.3])
    tau = [rank + 1 for rank in ranks(strict)]
    assert tau == [2, 1, 3, 4]
    gains = [2**share - 1 for share in strict]
    assert gains == pytest.approx([0.5157165665, 0.587401052, 0.3195079108, 0.2030250361])
    expected = {(0, 1): 0.0381688211, (0, 2): 0.0370621878, (0, 3): 0.0903379252}
    expected |= {(1, 2): 0.1932440531, (1, 3): 0.3157111253, (2, 3): 0.0116497535}
    for (i, j), value in expected.items():
        discounts = 1 / math.log(1 + tau[i]) - 1 / math.log(1 + tau[j])
        assert abs(gains[i] - gains[j]) * abs(discounts) == pytest.approx(value, abs=1e-9)


def test_a_sum_weighs_scores_and_z_scores_forget_units() -> None:
    rows = [[1.0, 2.0, 6.0], [30.0, 10.0, 20.0]]
    assert combine(rows, "weighted_sum", [1.0, 0.1]) == pytest.approx([4.0, 3.0, 8.0])
    numpy = np.array(rows)
    z = (numpy - numpy.mean(axis=1, keepdims=True)) / numpy.std(axis=1, keepdims=True)
    assert combine(rows, "zscore", [2.0, 1.0]) == pytest.approx(list(np.array([2.0, 1.0]) @ z))
    assert combine([[1000 * v - 3 for v in rows[0]], rows[1]]) == pytest.approx(combine(rows))
    assert combine(rows, "win_fraction", [3.0, 1.0]) == pytest.approx([0.25, 0.375, 0.875])
    assert combine(rows, "consensus") == combine(rows, "zscore")


@fast
@given(matrices)
def test_shares_of_wins_see_orders_only_and_are_a_half_on_average(rows: list[list[float]]) -> None:
    found = combine(rows, "win_fraction")
    assert sum(found) == pytest.approx(len(rows[0]) / 2)
    assert combine([[math.exp(3 * value) for value in row] for row in rows], "win_fraction") == found


@pytest.mark.parametrize("rule", COMBINATIONS)
@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_candidate_without_a_score_has_none_and_does_not_move_the_others(rule: str, bad: float) -> None:
    rows = [[1.0, 5.0, 2.0, 4.0], [0.1, 0.4, 0.2, 0.9]]
    holed = [[1.0, 5.0, bad, 4.0], rows[1]]
    found = combine(holed, rule)  # type: ignore[arg-type]
    without = combine([[row[k] for k in (0, 1, 3)] for row in rows], rule)  # type: ignore[arg-type]
    assert math.isnan(found[2]) and [found[k] for k in (0, 1, 3)] == pytest.approx(without)
    assert all(map(math.isnan, combine([[bad] * 4, rows[1]], rule)))  # type: ignore[arg-type]


def test_equal_scores_standardise_to_nothing() -> None:
    assert standardised([0.1] * 3) == [0.0, 0.0, 0.0]
    assert standardised([NAN, 2.0]) == pytest.approx([NAN, 0.0], nan_ok=True)
    assert combine([[0.1] * 3, [1.0, 2.0, 3.0]]) == pytest.approx(standardised([1.0, 2.0, 3.0]))


@fast
@given(matrices)
def test_agreed_pairs_are_all_pairs_that_every_reward_orders_alike(rows: list[list[float]]) -> None:
    size = len(rows[0])
    expected = {(i, j) for i, j in itertools.permutations(range(size), 2) if all(row[i] > row[j] for row in rows)}
    found = agreed_pairs(rows)
    assert set(found) == expected and len(found) == len(expected)


def test_disagreement_is_the_spread_of_z_scores() -> None:
    rows = [[0.0, 1.0, NAN], [5.0, 3.0, 1.0]]
    assert disagreement(rows) == pytest.approx([1.0, 1.0, NAN], nan_ok=True)
    assert disagreement([[1.0, 2.0, 4.0]] * 3) == pytest.approx([0.0] * 3)


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([], {}, ConfigError, "at least one reward"),
        ([[1.0], [1.0, 2.0]], {}, ShapeError, r"every reward scores every candidate, got \[1, 2\]"),
        ([[1.0, 2.0]], {"rule": "mean"}, ConfigError, "unknown; known: weighted_sum, zscore"),
        ([[1.0, 2.0]], {"weights": [1.0, 2.0]}, ShapeError, "1 rewards needs as many weights, got 2"),
        ([[1.0, 2.0]], {"weights": [0.0]}, ConfigError, "not all 0"),
        ([[1.0, 2.0]], {"weights": [-1.0]}, ConfigError, ">= 0"),
        ([[1.0, 2.0]], {"weights": [NAN]}, ConfigError, ">= 0"),
    ],
)
def test_mistakes_of_ensembles(rows: list[list[float]], options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        combine(rows, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- agreement


def test_agreement_counts_pairs_within_prompts() -> None:
    scores = {
        "a": [[1.0, 2.0, 3.0], [1.0, 1.0], [0.0, 1.0], [2.0, 2.0]],
        "b": [[1.0, 3.0, 2.0], [1.0, 2.0], [NAN, 1.0], [5.0, 5.0]],
        "c": [[3.0, 2.0, 1.0], [2.0, 1.0], [0.0, 0.5], [1.0, 2.0]],
    }
    found = agreement(scores)
    pair = found.between("a", "b")
    counts = pair.concordant, pair.discordant, pair.first_ties, pair.second_ties, pair.both_ties, pair.unscored
    assert counts == (2, 1, 1, 0, 1, 1)
    assert pair.share == pytest.approx(2 / 3) and pair.tau == pytest.approx(1 / math.sqrt(4 * 3))
    turned = found.between("b", "a")
    assert (turned.first_ties, turned.second_ties) == (0, 1) and turned.tau == pair.tau
    assert found.shares()[0][0] == 1.0 and found.shares()[0][1] == found.shares()[1][0] == pair.share
    assert found.between("a", "c").tau == found.taus()[2][0] < 0
    assert found.to_json()["prompts"] == 4 and len(found.to_json()["pairs"]) == 3
    with pytest.raises(ShapeError, match="'b' scored 1 prompts and 3 candidates, 'a' 1 and 2"):
        agreement({"a": [[1.0, 2.0]], "b": [[1.0, 2.0, 3.0]]})


def test_scorers_without_an_order_agree_on_nothing() -> None:
    pair = agreement({"a": [[1.0, 1.0]], "b": [[1.0, 2.0]]}).between("a", "b")
    assert math.isnan(pair.share) and math.isnan(pair.tau)
    assert agreement({"a": [[1.0, 1.0]], "b": [[1.0, 2.0]]}).to_json()["pairs"][0]["share"] is None
    assert agreement({}).names == ()


@fast
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_tau_of_one_prompt_is_the_textbook_s(points: list[tuple[int, int]]) -> None:
    pair = agreement({"a": [[float(x) for x, _ in points]], "b": [[float(y) for _, y in points]]}).between("a", "b")
    signs = [(np.sign(p[0] - q[0]), np.sign(p[1] - q[1])) for p, q in itertools.combinations(points, 2)]
    top = sum(x * y for x, y in signs)
    bottom = math.sqrt(sum(x * x for x, _ in signs) * sum(y * y for _, y in signs))
    assert pair.tau == pytest.approx(top / bottom if bottom else NAN, nan_ok=True)


# ---------------------------------------------------------------- probabilities


def test_golden_pickscore_accuracy_with_ties() -> None:
    probabilities, labels = [0.62, 0.52, 0.1, 0.45], [1.0, 0.5, 1.0, 0.0]
    found = [accuracy_with_ties(probabilities, labels, tie) for tie in (0.0, 0.1, 0.2, 0.3)]
    assert found == [0.625, 0.75, 0.625, 0.5]


def test_golden_smpo_pickscore_probability() -> None:
    assert smoothed_preference(0.2213, 0.2035) == pytest.approx(0.5266884304, abs=1e-10)
    low, high = 0.11543526500463486, 0.28201571106910706
    found = calibrate("pickscore", "v1", [(0.2213, 0.2035), (low, high)], [1.0, 0.0], ["a", "b"], rule="range")
    assert found.probability(0.2213, 0.2035) == pytest.approx(0.5266884304, abs=1e-10)


def test_calibration_error_by_hand_and_whichever_is_the_first() -> None:
    probabilities, labels = [0.9, 0.1, 0.9, 0.62, 0.5, 0.5], [1.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    bins = reliability(probabilities, labels, 5)
    assert [one.count for one in bins] == [2, 1, 0, 0, 3] and math.isnan(bins[2].predicted)
    assert bins[4].observed == pytest.approx(2 / 3) and bins[0].observed == 0.5
    expected = (3 * abs(0.9 - 2 / 3) + 1 * 0.12) / 6
    assert calibration_error(probabilities, labels, 5) == pytest.approx(expected)
    turned = [1 - p for p in probabilities], [1 - y for y in labels]
    assert calibration_error(*turned, 5) == pytest.approx(expected)
    assert log_loss([0.0], [0.0]) == 0.0 and log_loss([0.0], [1.0]) == math.inf


def _world(scale: float, nu: float = 0.0, count: int = 6000) -> tuple[list[float], list[float]]:
    draw = np.random.default_rng(5)
    gaps = draw.normal(size=count) * 3
    odds = np.stack([np.exp(scale * gaps / 2), np.full(count, nu), np.exp(-scale * gaps / 2)]).T
    bounds = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    outcome = (draw.random(count)[:, None] > bounds).sum(axis=1)
    return list(gaps), [(1.0, 0.5, 0.0)[number] for number in outcome]


def test_the_scale_that_made_the_labels_is_found_again() -> None:
    gaps, labels = _world(0.7)
    scale, tie = fitted_scale(gaps, labels)
    assert scale == pytest.approx(0.7, rel=0.05) and tie == 0.0
    slope = sum(gap * (label - 1 / (1 + math.exp(-scale * gap))) for gap, label in zip(gaps, labels, strict=True))
    assert abs(slope) < 1e-6  # the likeliest: where the derivative is 0
    assert fitted_scale([100 * gap for gap in gaps], labels)[0] == pytest.approx(scale / 100)  # units
    assert fitted_scale([-g for g in gaps], [1 - y for y in labels])[0] == pytest.approx(scale)  # who is first
    twice = fitted_scale([*gaps, *gaps[:50]], [*labels, *labels[:50]])
    weighed = fitted_scale(gaps, labels, [2.0] * 50 + [1.0] * (len(gaps) - 50))
    assert twice == pytest.approx(weighed)


def test_ties_as_an_outcome_leave_the_scale_and_as_halves_shrink_it() -> None:
    gaps, labels = _world(0.7, nu=0.8)
    scale, tie = fitted_scale(gaps, labels, ties="davidson")
    assert (scale, tie) == (pytest.approx(0.7, rel=0.05), pytest.approx(0.8, rel=0.08))
    assert fitted_scale(gaps, labels)[0] < 0.6
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):  # nothing near is likelier
        assert _davidson(gaps, labels, scale + step[0], tie + step[1]) < _davidson(gaps, labels, scale, tie)
    clear = [(g, y) for g, y in zip(gaps, labels, strict=True) if y != 0.5]
    columns = [g for g, _ in clear], [y for _, y in clear]
    assert fitted_scale(*columns, ties="davidson") == fitted_scale(*columns)


def _davidson(gaps: list[float], labels: list[float], scale: float, nu: float) -> float:
    total = 0.0
    for gap, label in zip(gaps, labels, strict=True):
        odds = {1.0: math.exp(scale * gap / 2), 0.5: nu, 0.0: math.exp(-scale * gap / 2)}
        total += math.log(odds[label] / sum(odds.values()))
    return total


@fast
@given(st.floats(-8, 8), st.floats(0.1, 5), st.floats(0, 3))
def test_the_probabilities_of_both_orders_add_up(gap: float, scale: float, nu: float) -> None:
    odds = [math.exp(scale * gap / 2), nu, math.exp(-scale * gap / 2)]
    expected = (odds[0] + odds[1] / 2) / sum(odds)
    assert win_probability(gap, scale, nu) == pytest.approx(expected, abs=1e-12)
    assert win_probability(-gap, scale, nu) == pytest.approx(1 - win_probability(gap, scale, nu), abs=1e-12)
    assert win_probability(1e6 * gap, scale, nu) >= 0.0


@pytest.mark.parametrize(
    ("gaps", "labels", "message"),
    [
        ([0.0, 0.0], [1.0, 0.0], "none of 2 labelled pairs has a gap"),
        ([1.0, -1.0], [0.0, 1.0], "no better than chance"),
        ([1.0, 2.0, -1.0], [1.0, 1.0, 0.0], "all of 3 labels agree with the order"),
    ],
)
def test_labels_that_fit_no_scale(gaps: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted_scale(gaps, labels)


def test_a_calibration_lowers_the_error_on_pairs_it_has_not_seen_and_is_read_as_written(tmp_path: Path) -> None:
    gaps, labels = _world(0.7, count=3000)
    pairs = [(20 + gap, 20.0) for gap in gaps]
    groups = [str(number // 3) for number in range(len(pairs))]
    found = calibrate("pickscore", "v1", pairs, labels, groups, scale_before=3.0)
    assert found.error_before > 0.08 > 0.03 > found.error_after and found.loss_after < found.loss_before
    assert found.scale == pytest.approx(fitted_scale([a - b for a, b in pairs], labels)[0])
    assert (found.pairs, found.ties, found.scale_before) == (3000, 0, 3.0)
    found.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == found
    with pytest.raises(DataError, match="labels of 3 prompts; at least 5"):
        calibrate("p", "v", pairs[:9], labels[:9], groups[:9])
    with pytest.raises(ShapeError, match="give one of each"):
        calibrate("p", "v", pairs, labels, groups[:1])


def test_the_error_after_is_of_folds_that_the_fit_has_not_seen() -> None:
    """Labels that say the opposite in one prompt out of many: judged by a fit without them, they are surprising."""
    gaps, labels = _world(0.7, count=40)
    groups = [str(number) for number in range(40)]
    found = calibrate("p", "v", [(gap, 0.0) for gap in gaps], labels, groups)
    own = log_loss([win_probability(gap, found.scale) for gap in gaps], labels)
    assert found.loss_after > own


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "score": "a"}'])
def test_what_is_no_calibration_is_told_in_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"c\.json: "):
        Calibration.load(path)
    with pytest.raises(DataError, match="no such calibration; make it with 'diffpref reward calibrate'"):
        Calibration.load(tmp_path / "nothing.json")

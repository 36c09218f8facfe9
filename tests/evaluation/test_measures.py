"""Measures against the official numbers, and the properties that hold for any input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.evaluation.measures import (
    PROBES,
    VBENCH_RANGES,
    DpgAnswers,
    by_category,
    clipped_share,
    colour_saturation,
    diversity,
    dpg_categories,
    dpg_overall,
    dpg_score,
    frechet_distance,
    geneval_score,
    hpdv2_accuracy,
    hps_benchmark,
    jpeg_kilobytes,
    kernel_distance,
    macro_average,
    masked_answers,
    moments,
    pairwise_distance,
    probe_pictures,
    sharpness,
    vbench_score,
)
from diffpref.evaluation.reward_quality import PairScores, measure
from diffpref.evaluation.statistics import bootstrap_interval, sign_test, wilson_interval, win_rate

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    return case["inputs"], case["params"], case["expected"]


def numbers(given: dict[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in given.items()}


def test_win_rate_golden():
    inputs, _, expected = golden("winrate_bootstrap")
    result = win_rate(inputs["scores_a"], inputs["scores_b"])
    assert (result.wins, result.ties, result.losses) == (expected["wins"], expected["ties"], expected["losses"])
    assert result.rate == pytest.approx(expected["win_rate"], abs=1e-10)
    assert result.sign_test_p == expected["sign_test_p_two_sided"] == sign_test(3, 2)
    wilson = wilson_interval(result.rate, 6)
    assert [wilson.low, wilson.high] == pytest.approx(expected["wilson_ci95"], abs=1e-9)
    assert [bootstrap_interval(inputs[f"scores_{side}"], np.median).estimate for side in "ab"] == pytest.approx(
        [expected["median_a"], expected["median_b"]]
    )


# ---- Frechet and kernel distances


def test_frechet_golden():
    inputs, _, expected = golden("frechet_distance")
    found = frechet_distance(inputs["embeddings_a"], inputs["embeddings_b"])
    assert found == pytest.approx(expected["fd"], rel=1e-8)


def sets(seed: int = 0, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(width, width))
    return random.normal(size=(40, width)) @ mix, random.normal(0.5, 2.0, size=(30, width))


@pytest.mark.parametrize("seed", range(5))
def test_frechet_is_zero_for_one_set_symmetric_and_blind_to_rotation(seed):
    one, other = sets(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 9).normal(size=(6, 6)))
    distance = frechet_distance(one, other)
    assert distance > 0 and frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(other, one) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(one @ rotation, other @ rotation) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(moments(one), other) == distance


def test_frechet_of_singular_covariances_is_finite():
    one, other = (np.random.default_rng(seed).normal(size=(5, 64)) for seed in (0, 1))  # rank 4 of 64
    assert 0 < frechet_distance(one, other) < 200
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_frechet_of_known_gaussians():
    one = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # covariance 2/3
    assert frechet_distance(one, one + np.array([3.0, 4.0])) == pytest.approx(25.0)
    assert frechet_distance(one, 3 * one) == pytest.approx(2 * (2 / 3) * (3 - 1) ** 2)
    assert frechet_distance(one.astype(np.float16), one + 3) == pytest.approx(18.0)  # computed in float64


def test_kernel_distance_by_its_definition():
    one, other = (side[:30] for side in sets(3))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = [
        np.mean([kernel(side[i], side[j]) for i in range(30) for j in range(30) if i != j]) for side in (one, other)
    ]
    expected = sum(within) - 2 * np.mean([kernel(x, y) for x in one for y in other])
    whole = kernel_distance(one, other)
    assert whole.estimate == pytest.approx(expected, rel=1e-9) and whole.std is None and whole.subset_size == 30
    assert kernel_distance(other, one).estimate == pytest.approx(expected, rel=1e-9)
    drawn = kernel_distance(one, other, subset_size=20, num_subsets=200)
    assert drawn.std is not None and drawn.subset_size == 20
    assert drawn.estimate == pytest.approx(expected, abs=4 * drawn.std / 200**0.5)


def test_kernel_distance_is_unbiased_around_zero():
    random = np.random.default_rng(0)
    found = [kernel_distance(*random.normal(size=(2, 20, 4))).estimate for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20  # a biased estimate is positive each time
    assert min(found) < 0


def test_kernel_distance_draws_by_its_seed():
    one, other = sets(1)
    options: dict[str, Any] = {"subset_size": 10, "num_subsets": 5}
    assert kernel_distance(one, other, **options) == kernel_distance(one, other, **options)
    assert kernel_distance(one, other, seed=1, **options) != kernel_distance(one, other, **options)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_distances_refuse_what_means_nothing(measure):
    with pytest.raises(ShapeError):
        measure(np.ones(3), np.ones((3, 3)))
    with pytest.raises(ShapeError):
        measure(np.ones((3, 2)), np.ones((3, 3)))
    with pytest.raises(DataError):
        measure(np.ones((1, 2)), np.ones((3, 2)))
    with pytest.raises(DataError, match="finite"):
        measure(np.array([[np.nan, 0.0], [1.0, 1.0]]), np.ones((3, 2)))


# ---- diversity


def test_pairwise_distance_by_its_definition():
    embeds = np.random.default_rng(0).normal(size=(5, 8))
    units = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    expected = np.mean([1 - units[i] @ units[j] for i in range(5) for j in range(i)])
    assert pairwise_distance(embeds) == pytest.approx(expected, rel=1e-12)
    assert pairwise_distance([[1.0, 0.0], [0.0, 2.0]]) == pytest.approx(1.0)
    assert pairwise_distance([[1.0, 1.0]] * 4) == pytest.approx(0.0, abs=1e-12)
    assert pairwise_distance([[1.0, 0.0], [-3.0, 0.0]]) == pytest.approx(2.0)


def test_diversity_by_prompt():
    embeds = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    assert diversity(embeds, ["a", "b", "b", "a", "c"]) == pytest.approx({"a": 0.0, "b": 1.0})
    with pytest.raises(DataError, match="several seeds"):
        diversity(embeds, list("abcde"))
    with pytest.raises(ShapeError, match="5 embeddings but 2 groups"):
        diversity(embeds, ["a", "b"])
    with pytest.raises(DataError, match="direction"):
        pairwise_distance([[0.0, 0.0], [1.0, 0.0]])


# ---- probes of pictures


def test_clipped_share_counts_pixels_at_either_end():
    picture = np.full((2, 4, 3), 128, np.uint8)
    picture[0, 0, 1], picture[1, 3] = 255, 0
    assert clipped_share(picture) == 2 / 8
    picture[0, 1, 2] = 254
    assert clipped_share(picture) == 3 / 8 and clipped_share(picture, margin=0) == 2 / 8


def test_colour_saturation():
    assert (
        colour_saturation(np.full((2, 2, 3), 90, np.uint8)) == 0.0 == colour_saturation(np.zeros((2, 2, 3), np.uint8))
    )
    assert colour_saturation(np.array([[[200, 0, 0], [200, 100, 100]]], np.uint8)) == pytest.approx(0.75)


def test_sharpness_by_its_definition_and_falls_with_blur():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    luma = picture @ np.array([0.299, 0.587, 0.114])
    laplacian = [
        luma[i - 1, j] + luma[i + 1, j] + luma[i, j - 1] + luma[i, j + 1] - 4 * luma[i, j]
        for i in range(1, 8)
        for j in range(1, 6)
    ]
    assert sharpness(picture) == pytest.approx(np.var(laplacian))
    image = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert sharpness(image) > 10 * sharpness(image.resize((16, 16)).resize((64, 64)))
    assert sharpness(np.full((8, 8, 3), 7, np.uint8)) == 0.0 == sharpness(picture[:2])


def test_jpeg_grows_with_detail_and_is_that_of_a_file(tmp_path):
    black = np.zeros((64, 64, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert jpeg_kilobytes(black) < jpeg_kilobytes(noise // 32) < jpeg_kilobytes(noise)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    assert jpeg_kilobytes(noise) == (tmp_path / "noise.jpg").stat().st_size / 1000


def test_probes_of_several_pictures():
    pictures = [np.random.default_rng(i).integers(0, 256, (16, 12, 3), dtype=np.uint8) for i in range(3)]
    found = probe_pictures(pictures)
    assert list(found) == list(PROBES)
    assert all(np.array_equal(found[name], [PROBES[name](picture) for picture in pictures]) for name in PROBES)
    assert list(probe_pictures(pictures, ["sharpness"])) == ["sharpness"]
    with pytest.raises(ConfigError, match="did you mean 'sharpness'"):
        probe_pictures(pictures, ["sharpnes"])
    with pytest.raises(DataError):
        probe_pictures([np.zeros((4, 4), np.float64)])


# ---- benchmarks


def test_dpg_golden():
    inputs, _, expected = golden("dpg_dependency_score")
    answers, depends_on = numbers(inputs["answers"]), numbers(inputs["dependency"])
    assert masked_answers(answers, depends_on) == numbers(expected["masked_scores"])
    prompt = DpgAnswers([answers], depends_on, {number: f"c{number}" for number in answers})
    assert dpg_score(prompt) == expected["score"] and dpg_overall([prompt]) == 100 * expected["score"]
    unmasked = {f"c{n}": 100 * v for n, v in numbers(expected["official_category_uses_unmasked"]).items()}
    assert dpg_categories([prompt], legacy=True) == unmasked
    assert dpg_categories([prompt]) == {f"c{n}": 100 * v for n, v in numbers(expected["masked_scores"]).items()}


def test_dpg_averages_crops_then_prompts():
    good, bad = DpgAnswers([{1: 1}, {1: 0}], {1: [0]}, {1: "a"}), DpgAnswers([{1: 0, 2: 1}], {1: [0]}, {1: "a", 2: "b"})
    assert dpg_score(good) == 0.5 and dpg_score(bad) == 0.5 and dpg_overall([good, bad]) == 50
    assert dpg_categories([good, bad]) == {"a": pytest.approx(100 / 3), "b": 100}
    assert dpg_categories([good, bad], legacy=True)["a"] == 0  # the last crop only


def test_a_question_before_its_parent_sees_the_parent_unmasked():
    answers = {1: 1, 2: 1, 3: 0}
    assert masked_answers(answers, {1: [2], 2: [3], 3: [0]}) == {1: 1, 2: 0, 3: 0}  # as the official order has it
    assert masked_answers(answers, {2: [3], 1: [2], 3: [0]}) == {1: 0, 2: 0, 3: 0}
    with pytest.raises(DataError, match="no answer to question 4, which question 1 needs"):
        masked_answers(answers, {1: [4]})
    with pytest.raises(DataError, match="at least one picture"):
        dpg_score(DpgAnswers([], {}))


def test_vbench_golden():
    inputs, params, expected = golden("vbench_total")
    result = vbench_score(inputs["raw"])
    assert result.quality == pytest.approx(expected["quality"], abs=1e-10)
    assert result.semantic == pytest.approx(expected["semantic"], abs=1e-10)
    assert result.total == pytest.approx(expected["total"], abs=1e-10)
    assert {name: {"Min": low, "Max": high} for name, (low, high) in VBENCH_RANGES.items()} == params["normalize"]
    assert vbench_score({name.replace(" ", "_"): value for name, value in inputs["raw"].items()}) == result


@pytest.mark.parametrize("name", VBENCH_RANGES)
def test_vbench_total_is_linear_in_each_dimension(name):
    raw = golden("vbench_total")[0]["raw"]
    at = [vbench_score({**raw, name: value}).total for value in (0.1, 0.4, 0.7)]
    assert at[0] < at[1] and at[2] - at[1] == pytest.approx(at[1] - at[0], rel=1e-9)


def test_vbench_wants_every_dimension_and_no_other():
    raw = golden("vbench_total")[0]["raw"]
    with pytest.raises(DataError, match="missing: scene"):
        vbench_score({name: value for name, value in raw.items() if name != "scene"})
    with pytest.raises(DataError, match="no dimension 'sceen'; did you mean 'scene'"):
        vbench_score({**raw, "sceen": 0.5})


def test_geneval_overall_is_the_mean_of_the_tasks():
    result = geneval_score([1, 1, 1, 0], ["colors", "colors", "colors", "position"])
    assert result.overall == 0.5 and result.images == 0.75 and result.tasks == {"colors": 1.0, "position": 0.0}
    even = geneval_score([1, 0, 1, 0], ["a", "a", "b", "b"])
    assert even.overall == even.images == 0.5
    some = geneval_score([1, float("nan"), 0], ["a", "a", "b"])
    assert (some.overall, some.dropped) == (0.5, 1)
    with pytest.raises(DataError, match="none of 1"):
        geneval_score([float("nan")], ["a"])
    with pytest.raises(ShapeError):
        geneval_score([1, 0], ["a"])


def test_rank_metrics_golden():
    inputs, _, expected = golden("rank_metrics")
    scores = [-float(rank) for rank in inputs["pred_rank"]]
    accuracy = hpdv2_accuracy([scores], [inputs["true_rank"]])
    assert accuracy == pytest.approx(expected["inversion_score(hpdv2 accuracy)"])
    scores, ranks = inputs["pred_scores"], inputs["gt_rank_with_ties"]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    gaps = [scores[i] - scores[j] for i, j in pairs]
    labels = [0.5 + 0.5 * ((ranks[i] < ranks[j]) - (ranks[i] > ranks[j])) for i, j in pairs]
    found = measure(PairScores(labels, gaps, None, [""] * len(pairs)))
    assert (found.ties, found.decided) == (1, expected["calc_ImageReward_accuracy"])


def test_the_accuracy_of_rankings_counts_each_prompt_once_and_no_tie_against():
    right, wrong = ([3.0, 2.0, 1.0], [1, 2, 3]), ([1.0, 2.0], [1, 2])
    assert hpdv2_accuracy(*zip(right, wrong, strict=True)) == 0.5
    assert hpdv2_accuracy([[1.0, 1.0]], [[1, 2]]) == 1.0  # where `reward evaluate` counts it as wrong
    with pytest.raises(ShapeError, match="same two pictures"):
        hpdv2_accuracy([[1.0, 2.0]], [[1, 2, 3]])
    with pytest.raises(DataError, match="finite"):
        hpdv2_accuracy([[1.0, math.nan]], [[1, 2]])


def test_hps_benchmark_by_style():
    scores = np.arange(40.0)
    overall, styles = hps_benchmark(scores, {"anime": range(20), "photo": range(20, 23)})
    assert overall == pytest.approx(np.mean(scores[:23])) and styles["anime"].mean == pytest.approx(9.5)
    assert styles["anime"].group_std == pytest.approx(np.std(np.arange(20).reshape(10, 2).mean(axis=1)))
    assert styles["photo"].group_std is None and styles["photo"].count == 3
    with pytest.raises(DataError, match="finite"):
        hps_benchmark([np.nan], {"anime": [0]})


def test_categories_are_measured_apart_and_count_alike():
    scores = np.array([1.0, 0.0, 0.0, 0.0])
    found = by_category({"a": (0,), "b": (1, 2, 3)}, lambda rows: float(scores[rows].mean()))
    assert found == {"a": 1.0, "b": 0.0} and macro_average(found) == 0.5 != scores.mean()
    with pytest.raises(DataError, match="no categories"):
        macro_average({})


# ---- intervals cover at the stated rate


def covered(total: int, inside: int, level: float) -> bool:
    """Whether ``inside`` of ``total`` intervals is a count that the level makes likely, to one in a million."""
    return abs(inside - total * level) <= 4.9 * (total * level * (1 - level)) ** 0.5


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_intervals_of_a_difference_cover_at_their_level(level):
    random, truth, inside = np.random.default_rng(0), 0.3, 0
    for number in range(400):
        interval = bootstrap_interval(random.normal(truth, 1.0, 200), num_draws=400, level=level, seed=number)
        inside += interval.low <= truth <= interval.high
    assert covered(400, inside, level)


def test_intervals_of_a_win_rate_with_ties_cover():
    random, inside = np.random.default_rng(2), 0
    for number in range(300):
        points = random.choice([1.0, 0.0, -1.0], 150, p=[0.5, 0.2, 0.3])  # wins, ties, losses: a rate of 0.6
        result = win_rate(points, np.zeros(150), num_draws=300, seed=number)
        inside += result.low <= 0.6 <= result.high
    assert covered(300, inside, 0.95)


def test_clustered_intervals_cover_where_prompts_matter_and_plain_ones_do_not():
    random, inside, plain_inside = np.random.default_rng(1), 0, 0
    groups = np.repeat(np.arange(60), 4).tolist()
    for number in range(300):
        values = np.repeat(random.normal(0, 1, 60), 4) + random.normal(0, 0.3, 240)
        clustered = bootstrap_interval(values, num_draws=300, seed=number, groups=groups)
        plain = bootstrap_interval(values, num_draws=300, seed=number)
        inside += clustered.low <= 0 <= clustered.high
        plain_inside += plain.low <= 0 <= plain.high
    assert covered(300, inside, 0.95) and not covered(300, plain_inside, 0.95)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(30, 400))
def test_wilson_covers_on_average_at_any_rate(rate, total):
    wins = np.random.default_rng(total).binomial(total, rate, 1000)
    intervals = {int(count): wilson_interval(int(count) / total, total) for count in set(wins.tolist())}
    share = np.mean([intervals[count].low <= rate <= intervals[count].high for count in wins.tolist()])
    assert 0.9 < share < 0.99

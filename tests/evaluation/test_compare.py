"""Comparing two models: literal shares and scores."""

import json
import math

import numpy as np
import pytest
import torch

from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import DataError, ShapeError
from diffpref.evaluation import compare
from diffpref.evaluation.selection import gain, order_by_gain, random_sample


class Brightness:
    """A real reward: the mean of the red channel; NaN for a picture that is all black."""

    info = RewardInfo("brightness", "v1", "Apache-2.0", (0.0, 255.0))

    def score(self, media, prompts, metadata=None):
        means = [float(np.asarray(m)[..., 0].mean()) for m in media]
        return torch.tensor([m if np.asarray(p).any() else math.nan for m, p in zip(means, media, strict=True)])


def picture(red: int, green: int = 1) -> np.ndarray:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0], image[..., 1] = red, green
    return image


def facts(image, prompt):
    return {"red": bool(image[0, 0, 0] > 100), "green": bool(image[0, 0, 1] > 100)}


PROMPTS, SEEDS = ["a", "a", "b", "c"], [0, 1, 0, 0]
BASE = [picture(50), picture(120), picture(120, 120), picture(0, 0)]
ALIGNED = [picture(200, 200), picture(120), picture(60, 120), picture(200)]


@pytest.fixture
def comparison():
    return compare(PROMPTS, SEEDS, BASE, ALIGNED, {"bright": Brightness()}, facts, num_draws=200)


def test_shares_scores_and_win_rates_have_the_counted_values(comparison):
    (judge,) = comparison.judges
    assert (judge.name, judge.version) == ("bright", "v1")
    assert (judge.win.wins, judge.win.ties, judge.win.losses, judge.win.dropped) == (1, 1, 1, 1)
    assert (judge.base_mean, judge.aligned_mean) == pytest.approx((290 / 3, 380 / 3))
    assert (judge.base_median, judge.aligned_median) == (120.0, 120.0)
    assert judge.difference.estimate == pytest.approx(30.0)
    shares = {fact.name: (fact.base_share, fact.aligned_share) for fact in comparison.facts}
    assert shares == {"red": (0.5, 0.75), "green": (0.25, 0.5)}
    assert comparison.all_facts.base_share == 0.25 and comparison.all_facts.aligned_share == 0.25
    assert comparison.all_facts.difference.estimate == 0.0
    assert (comparison.num_facts.win.wins, comparison.num_facts.win.ties, comparison.num_facts.win.losses) == (2, 1, 1)
    assert comparison.num_prompts == 3


def test_score_that_is_not_finite_is_null_in_json(comparison):
    value = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert value["items"][3]["base_scores"] == {"bright": None}
    assert value["judges"][0]["win"]["dropped"] == 1
    assert (value["num_pairs"], value["num_prompts"]) == (4, 3)


def test_same_comparison_twice_is_the_same(comparison):
    again = compare(PROMPTS, SEEDS, BASE, ALIGNED, {"bright": Brightness()}, facts, num_draws=200)
    assert again == comparison


def test_swapping_the_sides_negates_every_difference(comparison):
    swapped = compare(PROMPTS, SEEDS, ALIGNED, BASE, {"bright": Brightness()}, facts, num_draws=200)
    for one, other in zip((*comparison.facts, *comparison.judges), (*swapped.facts, *swapped.judges), strict=True):
        assert one.difference.estimate == pytest.approx(-other.difference.estimate)


def test_model_against_itself_is_even():
    result = compare(PROMPTS[:3], SEEDS[:3], BASE[:3], BASE[:3], {"bright": Brightness()}, facts, num_draws=50)
    assert result.judges[0].win.rate == result.num_facts.win.rate == 0.5
    assert order_by_gain(result) == ([], [])


def test_pairs_are_ordered_by_facts_then_by_the_first_judge(comparison):
    assert [gain(item) for item in comparison.items] == [(2.0, 150.0), (0.0, 0.0), (-1.0, -60.0), (1.0, 0.0)]
    assert order_by_gain(comparison) == ([0, 3], [2])


def test_pairs_without_facts_are_ordered_by_the_first_judge():
    result = compare(PROMPTS, SEEDS, BASE, ALIGNED, {"bright": Brightness()}, num_draws=50)
    assert result.all_facts is None and result.facts == ()
    assert order_by_gain(result) == ([0], [2])  # the fourth pair has no finite score


def test_facts_alone_are_enough():
    result = compare(PROMPTS, SEEDS, BASE, ALIGNED, {}, facts, num_draws=50)
    assert result.judges == () and order_by_gain(result) == ([0, 3], [2])


def test_shown_sample_depends_on_the_seed_alone():
    assert random_sample(100, 5) == random_sample(100, 9)[:5]
    assert random_sample(100, 5, seed=1) != random_sample(100, 5)
    assert sorted(random_sample(4, 10)) == [0, 1, 2, 3]


def test_a_judge_without_a_finite_pair_has_no_numbers():
    (judge,) = compare(["c"], [0], BASE[3:], ALIGNED[3:], {"bright": Brightness()}).judges
    assert (judge.base_mean, judge.aligned_mean, judge.difference, judge.win, judge.dropped) == (*[None] * 4, 1)


def test_mistakes_are_told():
    with pytest.raises(ShapeError, match="got 4, 4, 3 and 4"):
        compare(PROMPTS, SEEDS, BASE[:3], ALIGNED, {"bright": Brightness()})
    with pytest.raises(DataError, match="nothing to compare"):
        compare(PROMPTS, SEEDS, BASE, ALIGNED, {})
    with pytest.raises(DataError, match="same facts"):
        compare(["a", "b"], [0, 0], BASE[:2], BASE[:2], {}, lambda image, prompt: {prompt: True})

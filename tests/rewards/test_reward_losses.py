"""What the losses of preference scorers promise besides their golden numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffpref import rewards
from diffpref.core.errors import ConfigError, ShapeError


def features(seed: int, size: int = 4) -> Tensor:
    return torch.randn(size, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pickscore(preference: Tensor, *, first: int = 1, second: int = 2, negatives: bool = False) -> Tensor:
    terms = rewards.pickscore_loss(
        text_features=features(0),
        first_features=features(first),
        second_features=features(second),
        preference=preference,
        num_examples_per_prompt=torch.tensor([1, 2, 4, 1]),
        logit_scale=torch.tensor(2.0, dtype=torch.float64),
        in_batch_negatives=negatives,
    )
    assert terms.weights is not None and terms.weights.tolist() == [1.0, 0.5, 0.25, 1.0]
    return terms.losses


@pytest.mark.parametrize("negatives", [False, True])
def test_pickscore_does_not_care_which_image_comes_first(negatives):
    label = torch.tensor([1.0, 0.0, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(
        pickscore(label, negatives=negatives), pickscore(1 - label, first=2, second=1, negatives=negatives)
    )


def test_pickscore_is_zero_for_a_tie_of_equal_scores_and_never_negative():
    tie = torch.full((4,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(pickscore(tie, second=1), torch.zeros(4, dtype=torch.float64))
    assert (pickscore(torch.tensor([1.0, 0.0, 0.3, 0.9])) >= 0).all()


def test_pickscore_with_hard_labels_is_bradley_terry_and_hps():
    scale = torch.tensor(2.0, dtype=torch.float64)
    unit = [torch.nn.functional.normalize(features(seed), dim=-1) for seed in range(3)]
    chosen, rejected = (scale.exp() * (unit[0] * unit[i]).sum(-1) for i in (1, 2))
    losses = pickscore(torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(losses, rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected))
    hps = rewards.hps_pair_loss(
        text_features=features(0),
        first_features=features(1),
        second_features=features(2),
        preference=torch.ones(4),
        logit_scale=scale,
    )
    torch.testing.assert_close(losses, hps)


def test_bradley_terry_is_ln_2_for_equal_scores_and_keeps_extremes_finite():
    score = torch.tensor([0.3, -2.0], requires_grad=True)
    losses = rewards.bradley_terry_loss(chosen_score=score, rejected_score=score.detach())
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    losses.sum().backward()
    assert score.grad is not None and score.grad.tolist() == [-0.5, -0.5]
    extreme = torch.tensor([-1e4, 1e4])
    assert rewards.bradley_terry_loss(chosen_score=extreme, rejected_score=-extreme).tolist() == [2e4, 0.0]


def test_bradley_terry_margin_and_centring():
    chosen, rejected = torch.tensor([1.0]), torch.tensor([0.5])
    shifted = rewards.bradley_terry_loss(chosen_score=chosen - 0.5, rejected_score=rejected)
    torch.testing.assert_close(
        rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected, target_margin=0.5), shifted
    )
    centred = rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected, centring=0.1)
    plain = rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected)
    torch.testing.assert_close(centred - plain, torch.tensor([0.1 * 1.5**2]))


def test_half_precision_is_computed_in_float32():
    half = torch.tensor([1.0], dtype=torch.bfloat16)
    assert rewards.bradley_terry_loss(chosen_score=half, rejected_score=half).dtype == torch.float32


def test_the_ranking_loss_counts_only_decided_pairs_of_images():
    score = torch.tensor([[2.0, 1.0, 9.0], [0.0, 0.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    rank = torch.tensor([[1, 3, 2], [1, 1, 2]])
    losses = rewards.hps_ranking_loss(list_score=score, list_mask=mask, list_rank=rank, margin=5.0)
    assert losses.tolist() == [3.0, 0.0]  # max(0, 5 - 2 * (2 - 1)); the second list is one tie
    wrong = rewards.hps_ranking_loss(list_score=-score, list_mask=mask, list_rank=rank, margin=5.0)
    assert wrong.tolist() == [7.0, 0.0]


def test_the_ranking_loss_does_not_care_about_the_order_of_a_list():
    score = features(5)
    rank = torch.tensor([[1, 2, 3, 4, 5, 6]] * 4)
    mask = torch.ones(4, 6, dtype=torch.bool)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        rewards.hps_ranking_loss(list_score=score, list_mask=mask, list_rank=rank),
        rewards.hps_ranking_loss(list_score=score[:, order], list_mask=mask, list_rank=rank[:, order]),
    )


def test_masked_entries_have_no_gradient():
    score = torch.tensor([[2.0, 1.0, 9.0]], requires_grad=True)
    mask, rank = torch.tensor([[True, True, False]]), torch.tensor([[1, 2, 3]])
    total = rewards.hps_ranking_loss(list_score=score, list_mask=mask, list_rank=rank, margin=5.0).sum()
    total = total + rewards.hps_list_loss(list_score=score, list_mask=mask, best=torch.tensor([0])).sum()
    total.backward()
    assert score.grad is not None and score.grad[0, 2] == 0 and score.grad[0, :2].abs().min() > 0


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError):
        rewards.bradley_terry_loss(chosen_score=torch.zeros(2), rejected_score=torch.zeros(3))
    with pytest.raises(ShapeError):
        rewards.hps_pair_loss(
            text_features=torch.zeros(2, 4),
            first_features=torch.zeros(2, 5),
            second_features=torch.zeros(2, 4),
            preference=torch.ones(2),
            logit_scale=torch.tensor(1.0),
        )


def test_ties_reduce_to_bradley_terry_and_are_likeliest_for_equal_scores():
    chosen, rejected = features(0)[0].requires_grad_(), features(1)[0]
    pair = {"chosen_score": chosen, "rejected_score": rejected}
    torch.testing.assert_close(rewards.rao_kupper_loss(**pair, theta=1.0), rewards.bradley_terry_loss(**pair))
    tie = torch.ones(6, dtype=torch.bool)
    swapped = {"chosen_score": rejected, "rejected_score": chosen}
    torch.testing.assert_close(rewards.rao_kupper_loss(**pair, tie=tie), rewards.rao_kupper_loss(**swapped, tie=tie))
    equal = rewards.rao_kupper_loss(chosen_score=rejected, rejected_score=rejected, tie=tie)
    torch.testing.assert_close(equal.neg().exp(), torch.full((6,), 2 / 3, dtype=torch.float64))
    assert (rewards.rao_kupper_loss(**pair, tie=tie) >= equal).all()
    for theta in (0.5, 1.0):
        with pytest.raises(ConfigError, match="theta must be more than 1"):
            rewards.rao_kupper_loss(**pair, tie=tie, theta=theta)


def test_uncertain_scores_reduce_to_bradley_terry_and_the_quadrature_is_the_expectation():
    mean, other, log_std = features(0)[0], features(1)[0], features(2)[0].requires_grad_()
    sure = {"chosen_log_std": torch.full((6,), -9.0), "rejected_log_std": torch.full((6,), -9.0)}
    torch.testing.assert_close(
        rewards.gaussian_pair_loss(chosen_mean=mean, rejected_mean=other, **sure),
        rewards.bradley_terry_loss(chosen_score=mean, rejected_score=other),
        rtol=1e-6,
        atol=1e-6,
    )
    spread = {"chosen_mean": mean, "rejected_mean": other, "chosen_log_std": log_std, "rejected_log_std": log_std}
    exact = rewards.gaussian_pair_loss(**spread, num_nodes=64)
    draws = torch.randn(6, 200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampled = rewards.gaussian_pair_loss(**spread, draws=draws)
    torch.testing.assert_close(sampled, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(rewards.gaussian_pair_loss(**spread), exact, rtol=1e-3, atol=1e-3)
    exact.sum().backward()
    assert log_std.grad is not None and (log_std.grad > 0).all()  # doubt costs
    with pytest.raises(ShapeError, match="differ in shape"):
        rewards.gaussian_pair_loss(**{**spread, "rejected_mean": other[:3]})

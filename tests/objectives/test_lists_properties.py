"""What lists promise beyond the common suite: ties, constants, short lists, and labels out of range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from objective_cases import tensors_of
from torch import Tensor

from diffpref import objectives
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.objectives import registry

LISTWISE = [name for name in registry.names() if "there" in registry.get(name).spec.function.__code__.co_names]
SHIFTED: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("lipo_lambda", "lipo_pairwise", "online_ipo_1_list", "online_ipo_2_list")},
    **{name: {} for name in ("dpo_plackett_luce", "list_softmax_ce")},
    "irpo_ranking": {"length_normalize": False},
    "cpl_kl_rank": {"bias": 1.0},
}
"""Objectives of differences: a constant added to every log-ratio of a list changes nothing."""
PINNED: dict[str, dict[str, Any]] = {"lipo_pointwise": {}, "cpl_kl_rank": {"bias": 0.5}}
"""Objectives that a constant does change."""


def call(name: str, tensors: dict[str, Tensor], **options: Any) -> Tensor:
    value = registry.get(name)(**tensors, **options)
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("name", LISTWISE)
def test_a_list_of_one_is_refused(name: str) -> None:
    tensors = tensors_of(registry.get(name).spec)
    alone = {
        key: t[:, :1, :1] if t.dim() == 3 and t.shape[1] == t.shape[2] else t[:, :1] if t.dim() > 1 else t
        for key, t in tensors.items()
    }
    with pytest.raises(ShapeError, match=f"'{name}'.*K = 1"):
        call(name, alone)


@pytest.mark.parametrize("name", LISTWISE)
def test_a_mask_that_leaves_one_candidate_is_refused(name: str) -> None:
    tensors = tensors_of(registry.get(name).spec, optional=True)
    tensors["list_mask"] = torch.zeros_like(tensors["list_mask"])
    tensors["list_mask"][:, 0] = 1
    with pytest.raises(ShapeError, match=f"'{name}'.*list_mask"):
        call(name, tensors)


@pytest.mark.parametrize("name", [*SHIFTED, *PINNED])
def test_a_constant_added_to_a_list_changes_only_what_it_may(name: str) -> None:
    for options, same in ((SHIFTED.get(name), True), (PINNED.get(name), False)):
        if options is not None:
            tensors = tensors_of(registry.get(name).spec)
            shifted = {**tensors, "list_log_ratio": tensors["list_log_ratio"] + 3.7}
            assert torch.allclose(call(name, shifted, **options), call(name, tensors, **options)) is same


@pytest.mark.parametrize("objective", [objectives.lipo_lambda, objectives.lipo_pairwise])
def test_equal_labels_form_no_pair(objective: Callable[..., Tensor]) -> None:
    ratios = torch.tensor([[3.0, -1.0, 2.0]], requires_grad=True)
    loss = objective(list_log_ratio=ratios, list_scores=torch.full((1, 3), 0.4))
    loss.sum().backward()
    assert loss.item() == 0 and ratios.grad is not None and not ratios.grad.any()


@pytest.mark.parametrize("objective", [objectives.lipo_lambda, objectives.lipo_pointwise])
def test_labels_out_of_range_are_explained(objective: Callable[..., Tensor]) -> None:
    ratios, scores = torch.zeros(1, 2), torch.tensor([[21.3, 20.1]])
    with pytest.raises(ConfigError, match=r"list_scores must lie in \[0, 1\], got 20.1 to 21.3; set labels=minmax"):
        objective(list_log_ratio=ratios, list_scores=scores)
    assert objective(list_log_ratio=ratios, list_scores=scores, labels="minmax").isfinite().all()


def test_ties_of_the_model_keep_the_order_of_the_list() -> None:
    """As at the first step, when every log-ratio is 0: the ranks are 1, 2, 3."""
    loss = objectives.lipo_lambda(
        list_log_ratio=torch.zeros(1, 3, dtype=torch.float64), list_scores=torch.tensor([[1.0, 0.0, 0.0]])
    )
    first, second, third = (1 / math.log(1 + rank) for rank in (1, 2, 3))
    assert loss.item() == pytest.approx(math.log(2) * ((first - second) + (first - third)))


def test_a_ranking_costs_the_logarithm_of_all_rankings_at_the_start() -> None:
    loss = objectives.dpo_plackett_luce(list_log_ratio=torch.zeros(1, 5), ranks=torch.tensor([[3, 1, 4, 0, 2]]))
    assert loss.item() == pytest.approx(math.log(math.factorial(5)))


def test_the_target_of_several_aims_is_a_sum_of_terms() -> None:
    """Why lambda-DPO needs no function of its own."""
    ratios = torch.tensor([[0.8, -0.5, 1.5]], dtype=torch.float64)
    aims = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 1.0, 1.0]]], dtype=torch.float64)
    mixed = 0.3 * aims[0] / aims[0].sum() + 0.7 * aims[1] / aims[1].sum()
    one = objectives.list_softmax_ce(list_log_ratio=ratios, list_scores=mixed, target="share")
    first, second = (objectives.list_softmax_ce(list_log_ratio=ratios, list_scores=a, target="share") for a in aims)
    torch.testing.assert_close(one, 0.3 * first + 0.7 * second)


def test_negative_scores_have_no_share() -> None:
    with pytest.raises(ConfigError, match="list_scores must lie in"):
        objectives.list_softmax_ce(
            list_log_ratio=torch.zeros(1, 2), list_scores=torch.tensor([[1.0, -1.0]]), target="share"
        )


def test_equal_rewards_rank_nothing_in_pro() -> None:
    logps = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    loss = objectives.pro(
        policy_list_logps=logps, list_scores=torch.full((1, 3), 0.4), sft_weight=0.0, length_normalize=False
    )
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(3) + math.log(2)) and logps.grad is not None and not logps.grad.any()


def test_pro_does_not_mind_the_order_of_the_list_nor_needs_it_sorted() -> None:
    logps, scores = torch.tensor([[-10.0, -18.0, -12.0]]), torch.tensor([[1.2, 0.4, -0.3]])
    turned = objectives.pro(policy_list_logps=logps.flip(1), list_scores=scores.flip(1), length_normalize=False)
    plain = objectives.pro(policy_list_logps=logps, list_scores=scores, length_normalize=False)
    torch.testing.assert_close(turned, plain)


@pytest.mark.parametrize("name", ["pro", "irpo_ranking"])
def test_a_list_without_lengths_says_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError, match="length_normalize=false"):
        call(name, tensors_of(registry.get(name).spec), length_normalize=True)


def test_grades_beyond_the_scale_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"list_scores must lie in \[0, 10\]"):
        objectives.irpo_ranking(
            list_log_ratio=torch.zeros(1, 2),
            list_scores=torch.tensor([[87.0, 3.0]]),
            ranks=torch.tensor([[0, 1]]),
            length_normalize=False,
        )

"""What objectives of tokens, segments and steps promise beyond the common suite."""

from __future__ import annotations

import math

import pytest
import torch
from objective_cases import tensors_of
from torch import Tensor

from diffpref import objectives
from diffpref.core.errors import ConfigError
from diffpref.objectives import registry
from diffpref.objectives.trees import step_scores


def gradients(name: str, tensors: dict[str, Tensor], **options: object) -> dict[str, Tensor | None]:
    trained = {key: tensors[key].requires_grad_() for key in registry.get(name).spec.trained}
    losses = registry.get(name)(**tensors, **options)
    assert isinstance(losses, Tensor)
    losses.sum().backward()
    return {key: tensor.grad for key, tensor in trained.items()}


def test_the_winner_may_move_away_from_the_reference_in_tdpo2_alone() -> None:
    tensors = tensors_of(registry.get("tdpo2").spec)
    assert gradients("tdpo2", dict(tensors))["chosen_kl"] is None
    moved = gradients("tdpo1", tensors_of(registry.get("tdpo1").spec))["chosen_kl"]
    assert moved is not None and bool((moved < 0).all())


def test_a_mask_of_zeros_teaches_the_policy_nothing() -> None:
    tensors = tensors_of(registry.get("sparsepo").spec)
    for key in ("policy_chosen_token_weight", "policy_rejected_token_weight"):
        tensors[key] = torch.zeros_like(tensors[key])
    found = gradients("sparsepo", tensors)
    for key in ("chosen_token_log_ratio", "rejected_token_log_ratio", "chosen_token_kl", "rejected_token_kl"):
        assert found[key] is None or not found[key].any()  # type: ignore[union-attr]


def test_a_token_that_the_guide_rewards_pulls_the_harder_the_larger_alpha() -> None:
    pulls = []
    for alpha in (0.0, 0.5, 2.0):
        tensors = tensors_of(registry.get("tgdpo").spec)
        for key in tensors:
            if key.endswith("log_ratio") and not key.startswith("guide"):
                tensors[key] = torch.zeros_like(tensors[key])
        tensors["guide_chosen_token_log_ratio"] = torch.ones_like(tensors["guide_chosen_token_log_ratio"])
        found = gradients("tgdpo", tensors, alpha=alpha)["chosen_token_log_ratio"]
        assert found is not None
        pulls.append(found[0, 0].abs().item())
    assert pulls == sorted(pulls) and len(set(pulls)) == 3


@pytest.mark.parametrize("nonnegative", [False, True])
def test_weights_fall_below_zero_only_where_they_may(nonnegative: bool) -> None:
    tensors = tensors_of(registry.get("tgdpo").spec)
    tensors["guide_chosen_token_log_ratio"] = torch.full_like(tensors["guide_chosen_token_log_ratio"], -1e3)
    found = gradients("tgdpo", tensors, nonnegative=nonnegative)["chosen_token_log_ratio"]
    assert found is not None and bool((found > 0).any()) is not nonnegative


def test_policy_and_value_that_agree_with_the_outcome_cost_nothing() -> None:
    ones = torch.ones(2, 3)
    loss = objectives.oreo(
        token_log_ratio=torch.zeros(2, 3), policy_token_value=ones, token_mask=ones, label=torch.ones(2)
    )
    assert loss.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("train", ["policy", "value"])
def test_each_part_of_oreo_trains_its_own(train: str) -> None:
    found = gradients("oreo", tensors_of(registry.get("oreo").spec), train=train)
    trained = {"policy": "token_log_ratio", "value": "policy_token_value"}[train]
    for key, gradient in found.items():
        assert (gradient is not None and bool(gradient.any())) == (key == trained)


def test_only_the_first_units_of_steps_are_states() -> None:
    tensors = tensors_of(registry.get("oreo").spec, optional=True)
    tensors["token_mask"] = torch.ones_like(tensors["token_mask"])
    tensors["token_start"] = torch.zeros_like(tensors["token_start"])
    tensors["token_start"][:, 0] = 1
    value = gradients("oreo", tensors)["policy_token_value"]
    assert value is not None and bool(value[:, 0].all()) and not value[:, 1:].any()


def test_a_bias_below_one_makes_a_pair_of_unlikely_segments_cost_more() -> None:
    pair = {"policy_chosen_logps": torch.tensor([-2.0]), "policy_rejected_logps": torch.tensor([-3.0])}
    lower = {name: value - 5 for name, value in pair.items()}
    assert objectives.cpl(**lower, bias=0.5) > objectives.cpl(**pair, bias=0.5)
    torch.testing.assert_close(objectives.cpl(**lower, bias=1.0), objectives.cpl(**pair, bias=1.0))


def test_a_tie_of_two_segments_is_least_where_they_are_alike() -> None:
    chosen = torch.tensor([-2.0], requires_grad=True)
    tie = {"preference": torch.tensor([0.5]), "bias": 1.0}
    objectives.cpl(policy_chosen_logps=chosen, policy_rejected_logps=torch.tensor([-2.0]), **tie).backward()
    assert chosen.grad is not None and chosen.grad.item() == pytest.approx(0)


def test_the_square_link_of_tree_search_needs_lengths() -> None:
    tensors = tensors_of(registry.get("mcts_dpo").spec)
    with pytest.raises(ConfigError, match="chosen_length and rejected_length"):
        objectives.mcts_dpo(**tensors, link="square")


def test_steps_weigh_as_in_the_released_helper() -> None:
    """Two paths of two steps, whose mean hidden states give the weights 1.70710678 and 2."""
    best, other = [[0.5, 0.5], [1.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]
    embeddings = torch.tensor([[best, other]], dtype=torch.float64)
    ratios = torch.tensor([[[0.3, 0.4], [-0.2, -0.1]]], dtype=torch.float64)
    there = torch.ones(1, 2, 2, dtype=torch.bool)
    scores = step_scores(ratios, embeddings, torch.tensor([0]), there, "similarity")
    assert scores[0].tolist() == pytest.approx([0.35, -0.14604957], abs=5e-9)


def test_steps_that_the_best_path_has_too_are_ignored_if_wanted() -> None:
    embeddings = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 1.0]]]])
    ratios = torch.tensor([[[0.3, 0.4], [7.0, -0.1], [0.2, 0.6]]])
    there = torch.ones(1, 3, 2, dtype=torch.bool)
    scores = step_scores(ratios, embeddings, torch.tensor([0]), there, "dissimilarity")
    assert scores[0].tolist() == pytest.approx([0.35, -0.1, 0.4], abs=1e-5)


def test_equal_paths_cost_log_2_a_pair() -> None:
    loss = objectives.tpo_tree(
        list_segment_log_ratio=torch.full((1, 2, 2), 0.3, dtype=torch.float64),
        policy_list_segment_embedding=torch.ones(1, 2, 2, 3, dtype=torch.float64),
        list_segment_mask=torch.ones(1, 2, 2),
        list_scores=torch.tensor([[1.0, 0.0]], dtype=torch.float64),
    )
    assert loss.item() == pytest.approx(math.log(2) * (1 / math.log(2) - 1 / math.log(3)))

"""The probability that a trained reward model gives a pair is the one that its loss is the logarithm of."""

from __future__ import annotations

import pytest
import torch

from diffpref import objectives
from diffpref.objectives.compose import compose
from diffpref.objectives.pair_probability import PairModel, pair_model

FIRST = {"score": torch.tensor([1.2, -0.3]).double(), "log_std": torch.tensor([-1.0, 0.2]).double()}
SECOND = {"score": torch.tensor([0.7, 0.4]).double(), "log_std": torch.tensor([-0.5, -2.0]).double()}
PAIR = {"policy_chosen_score": FIRST["score"], "policy_rejected_score": SECOND["score"]}


def of(name: str, **options: float) -> PairModel:
    found = pair_model(compose([(name, options)]))
    assert found is not None
    return found


def test_logistic() -> None:
    model = of("bradley_terry", temperature=0.5)
    assert model.pair_scale == 2.0
    torch.testing.assert_close(-model(FIRST, SECOND).log(), objectives.bradley_terry(**PAIR, temperature=0.5))
    assert of("pickscore").pair_scale == of("reward_plackett_luce").pair_scale == 1.0


def test_ties_count_half() -> None:
    model = of("bradley_terry_ties", threshold=0.4)
    win, tie = (
        (-objectives.bradley_terry_ties(**PAIR, preference=torch.full((2,), p), threshold=0.4)).exp()
        for p in (1.0, 0.5)
    )
    torch.testing.assert_close(model(FIRST, SECOND), win + tie / 2)
    assert model.pair_scale is None


def test_expected_over_two_deviations() -> None:
    model = of("uncertain_bradley_terry")
    z = torch.randn(400_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = (FIRST["log_std"].exp().square() + SECOND["log_std"].exp().square()).sqrt()
    expected = torch.sigmoid(FIRST["score"] - SECOND["score"] + spread * z).mean(dim=0)
    torch.testing.assert_close(model(FIRST, SECOND), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(model(FIRST, SECOND) + model(SECOND, FIRST), torch.ones(2).double())


def test_embeddings() -> None:
    one, other = {"embedding": torch.tensor([[3.0, 1.0]])}, {"embedding": torch.ones(1, 2)}
    loss = objectives.gpm(
        policy_chosen_embedding=one["embedding"], policy_rejected_embedding=other["embedding"], temperature=0.7
    )
    torch.testing.assert_close(-of("gpm", temperature=0.7)(one, other).log(), loss)


@pytest.mark.parametrize("name", ["hps_ranking", "reward_regression", "bradley_terry_aspects"])
def test_losses_without_a_probability_have_none(name: str) -> None:
    assert pair_model(compose([(name, {})])) is None

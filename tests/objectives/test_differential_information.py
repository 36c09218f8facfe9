"""Pairs that encode a target policy: their law, its entropy, and that DPO finds the target from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffpref.core.errors import ShapeError
from diffpref.objectives import dpo
from diffpref.objectives.differential_information import (
    did_entropy,
    differential_information,
    log_margin_order_violations,
    pair_law,
    preference_law,
    rejected_law,
)


def law(seed: int, size: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(size, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_pairs_of_the_two_laws_are_preferred_by_differential_information(beta: float) -> None:
    target, reference, chosen = law(0), law(1), law(2)
    rejected = rejected_law(chosen=chosen, target=target, reference=reference, beta=beta)
    log_q = beta * differential_information(target=target, reference=reference)
    expected = torch.sigmoid(log_q.unsqueeze(1) - log_q.unsqueeze(0))
    torch.testing.assert_close(preference_law(chosen=chosen, rejected=rejected), expected, rtol=1e-14, atol=1e-15)


def test_winners_of_the_target_have_losers_of_the_reference() -> None:
    target, reference = law(0), law(1)
    torch.testing.assert_close(rejected_law(chosen=target, target=target, reference=reference), reference)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_dpo_finds_the_target_from_pairs_that_encode_it(beta: float) -> None:
    """A softmax policy over five outcomes, the exact expected loss, KL below 1e-6."""
    target, reference, chosen = law(3), law(4), law(5)
    table = pair_law(chosen=chosen, rejected=rejected_law(chosen=chosen, target=target, reference=reference, beta=beta))
    assert table.sum().item() == pytest.approx(1)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    winner, loser = (index.flatten() for index in torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        ratio = torch.log_softmax(logits, dim=-1) - reference
        losses = dpo(chosen_log_ratio=ratio[winner], rejected_log_ratio=ratio[loser], beta=beta)
        loss = (table.flatten() * losses).sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = torch.log_softmax(logits.detach(), dim=-1)
    assert (target.exp() * (target - found)).sum().item() < 1e-6


def test_entropy_of_all_outcomes_is_exact_and_samples_estimate_it() -> None:
    target, reference = law(0), law(1)
    log_q = differential_information(target=target, reference=reference)
    exact = -(log_q.exp() * log_q).sum()
    torch.testing.assert_close(did_entropy(log_ratio=target - reference), exact)
    drawn = torch.multinomial(reference.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    estimate = did_entropy(log_ratio=(target - reference)[drawn], sample_logps=reference[drawn])
    assert estimate.item() == pytest.approx(exact.item(), abs=0.02)
    assert did_entropy(log_ratio=torch.zeros(7)).item() == pytest.approx(math.log(7))


def test_an_order_of_margins_is_violated_where_one_falls() -> None:
    chosen = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]])
    violations = log_margin_order_violations(chosen_logps=chosen, rejected_logps=torch.zeros(3, 2))
    assert violations.tolist() == [0.0, 0.5]
    with pytest.raises(ShapeError, match="two policies or more"):
        log_margin_order_violations(chosen_logps=chosen[:1], rejected_logps=chosen[:1])

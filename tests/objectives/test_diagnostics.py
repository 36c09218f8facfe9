"""Diagnostics and utilities, against the specification's numbers and worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from diffpref.core.errors import ConfigError, ShapeError
from diffpref.objectives import bradley_terry, bradley_terry_ties
from diffpref.objectives.diagnostics import (
    ches_score,
    gradient_ratio,
    idealised_margin,
    ranking_accuracy,
    ranking_loss_bound,
)
from diffpref.objectives.thurstonian import fit_utilities, thurstonian_probability

CHOSEN = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [1.0, -1.0], [0.2, 0.2]]], dtype=torch.float64)
REJECTED = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [-0.5, 1.0], [0.3, 0.1]]], dtype=torch.float64)
STATES = torch.tensor([[0, 1, 1, 0]])


@pytest.mark.parametrize(("length_normalize", "expected"), [(False, -3.25), (True, -0.8125)])
def test_ches_is_that_of_the_released_code(length_normalize: bool, expected: float) -> None:
    masks = {"chosen_token_mask": STATES, "rejected_token_mask": STATES}
    score = ches_score(chosen_hidden=CHOSEN, rejected_hidden=REJECTED, **masks, length_normalize=length_normalize)
    assert score.item() == pytest.approx(expected)
    same = ches_score(chosen_hidden=CHOSEN, rejected_hidden=CHOSEN, **masks, length_normalize=length_normalize)
    assert same.item() == pytest.approx(0)


def test_padding_does_not_enter_ches() -> None:
    longer = torch.cat([CHOSEN, torch.full((1, 2, 2), torch.nan, dtype=torch.float64)], dim=1)
    mask = torch.tensor([[0, 1, 1, 0, 0, 0]])
    score = ches_score(
        chosen_hidden=longer, rejected_hidden=REJECTED, chosen_token_mask=mask, rejected_token_mask=STATES
    )
    assert score.item() == pytest.approx(-3.25)
    with pytest.raises(ShapeError, match="do not fit"):
        ches_score(chosen_hidden=CHOSEN, rejected_hidden=CHOSEN, chosen_token_mask=mask, rejected_token_mask=mask)


def test_accuracy_counts_what_the_model_finds_at_least_as_likely() -> None:
    chosen, rejected = torch.tensor([-3.0, -5.0, -4.0]), torch.tensor([-4.0, -4.0, -4.0])
    assert ranking_accuracy(chosen_logps=chosen, rejected_logps=rejected).tolist() == [1.0, 0.0, 1.0]
    lengths = {"chosen_length": torch.tensor([1.0, 2.0, 1.0]), "rejected_length": torch.tensor([2.0, 1.0, 1.0])}
    assert ranking_accuracy(chosen_logps=chosen, rejected_logps=rejected, **lengths).tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(ShapeError, match="go together"):
        ranking_accuracy(chosen_logps=chosen, rejected_logps=rejected, chosen_length=lengths["chosen_length"])


def test_even_a_perfect_optimum_may_rank_a_pair_wrongly() -> None:
    gap = {"reference_chosen_logps": torch.tensor([-3.0]).double(), "reference_rejected_logps": torch.zeros(1).double()}
    gap["reference_rejected_logps"] -= 2.0
    margin = idealised_margin(**gap, preference=torch.tensor([0.7], dtype=torch.float64), beta=0.1)
    assert margin.item() == pytest.approx(7.472978604, abs=5e-10)
    assert idealised_margin(**gap, preference=torch.tensor([0.51]).double(), beta=1.0).item() < 0


def test_a_pair_is_ranked_rightly_below_the_bound_and_wrongly_above() -> None:
    reference, beta = (
        {"reference_chosen_logps": torch.tensor([-3.0]), "reference_rejected_logps": torch.tensor([-2.0])},
        0.3,
    )
    bound = ranking_loss_bound(**reference, beta=beta).item()
    for chosen, rejected in ((-2.0, -2.5), (-2.5, -2.4)):
        margin = beta * ((chosen + 3.0) - (rejected + 2.0))
        assert (math.log1p(math.exp(-margin)) <= bound) == (chosen >= rejected)


def test_the_rejected_sample_drops_the_faster_the_less_likely_it_is() -> None:
    ratio = gradient_ratio(chosen_logps=torch.tensor([-3.0, -3.0]), rejected_logps=torch.tensor([-3.0, -9.0]))
    assert ratio.tolist() == pytest.approx([1.0, math.exp(-6)])
    assert gradient_ratio(chosen_logps=torch.tensor([-1e4]), rejected_logps=torch.tensor([0.0])).isfinite().all()


def test_a_thurstonian_gap_counts_in_units_of_its_spread() -> None:
    def of(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64)

    probability = thurstonian_probability(
        first_mean=of(0.5), second_mean=of(0.0), first_variance=of(0.3), second_variance=of(0.2)
    )
    assert probability.item() == pytest.approx(0.760247742, abs=5e-10)


def test_utilities_explain_the_choices_they_were_fitted_to() -> None:
    true = torch.tensor([1.5, 0.5, -0.5, -1.5], dtype=torch.float64)
    pairs = torch.combinations(torch.arange(4))
    frequencies = torch.special.ndtr((true[pairs[:, 0]] - true[pairs[:, 1]]) / math.sqrt(2))
    mean, variance = fit_utilities(pairs, frequencies, 4, steps=300, learning_rate=0.03)
    assert mean.mean().item() == pytest.approx(0, abs=1e-9) and mean.std(unbiased=False).item() == pytest.approx(1)
    fitted = thurstonian_probability(
        first_mean=mean[pairs[:, 0]],
        second_mean=mean[pairs[:, 1]],
        first_variance=variance[pairs[:, 0]],
        second_variance=variance[pairs[:, 1]],
    )
    torch.testing.assert_close(fitted, frequencies, rtol=0, atol=0.02)
    assert mean.argsort(descending=True).tolist() == [0, 1, 2, 3]
    with pytest.raises(ShapeError, match="expected"):
        fit_utilities(pairs, frequencies[:2], 4)


def test_a_margin_needs_what_the_labeller_said() -> None:
    pair = {"policy_chosen_score": torch.ones(1), "policy_rejected_score": torch.zeros(1)}
    with pytest.raises(ConfigError, match="chosen_score and rejected_score"):
        bradley_terry(**pair, margin_scale=1.0)


def test_win_tie_and_loss_are_all_that_can_happen() -> None:
    pair = {"policy_chosen_score": torch.tensor([1.2]), "policy_rejected_score": torch.tensor([0.3])}
    total = sum(math.exp(-bradley_terry_ties(**pair, preference=torch.tensor([p])).item()) for p in (1.0, 0.5, 0.0))
    assert total == pytest.approx(1, abs=1e-6)

"""Weights of units from hidden states."""

from __future__ import annotations

import pytest
import torch

from diffpref.core.errors import ShapeError
from diffpref.likelihood import activation_weights, mean_by_step

HIDDEN = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def test_activations_are_standardised_over_the_tokens_of_each_response() -> None:
    weights = activation_weights(HIDDEN, MASK, form="raw")
    for row, size in ((0, 5), (1, 3)):
        levels = HIDDEN[:, row, :size].mean(dim=2)
        expected = ((levels - levels.mean(1, keepdim=True)) / levels.std(1, keepdim=True, unbiased=False)).mean(0)
        torch.testing.assert_close(weights[row, :size], expected)
    assert not weights[1, 3:].any() and not weights[2].any()


@pytest.mark.parametrize("form", ["minmax", "relu", "abs", "raw"])
def test_what_is_not_there_neither_weighs_nor_counts(form: str) -> None:
    spoilt = HIDDEN.clone()
    spoilt[:, 1, 3:] = torch.nan
    assert torch.equal(activation_weights(spoilt, MASK, form=form), activation_weights(HIDDEN, MASK, form=form))  # type: ignore[arg-type]


def test_the_forms_differ_as_they_say() -> None:
    raw = activation_weights(HIDDEN, MASK, form="raw")
    assert torch.equal(activation_weights(HIDDEN, MASK, form="relu"), raw.clamp(min=0))
    assert torch.equal(activation_weights(HIDDEN, MASK, form="abs"), raw.abs())
    scaled = activation_weights(HIDDEN, MASK)
    assert scaled[0].min() == 0 and scaled[0].max() == 1 and scaled[1, :3].max() == 1
    assert scaled[2].tolist() == [0.5, 0.0, 0.0, 0.0, 0.0]


def test_hidden_states_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(L, N, T, D\)"):
        activation_weights(HIDDEN, MASK[:, :4])


def test_steps_are_means_as_in_the_released_helper() -> None:
    ratios = torch.tensor([[0.5, 0.1, 0.4], [-0.2, 0.3, -0.5]], dtype=torch.float64)
    hidden = torch.tensor([[[1, 0], [0, 1], [1, 1]], [[1, 0], [1, 0], [0, 1]]], dtype=torch.float64)
    steps = torch.tensor([[0, 0, 1], [0, 1, 1]])
    means, there = mean_by_step(ratios, steps, 2)
    torch.testing.assert_close(means, torch.tensor([[0.3, 0.4], [-0.2, -0.1]], dtype=torch.float64))
    assert there.all()
    vectors, _ = mean_by_step(hidden, steps, 2)
    assert vectors.tolist() == [[[0.5, 0.5], [1.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]]


def test_units_of_no_step_are_left_out_and_late_ones_join_the_last() -> None:
    values, steps = torch.tensor([[torch.nan, 1.0, 3.0, 5.0]]), torch.tensor([[-1, 0, 2, 3]])
    means, there = mean_by_step(values, steps, 3)
    assert means.tolist() == [[1.0, 0.0, 4.0]] and there.tolist() == [[True, False, True]]
    with pytest.raises(ShapeError, match="one step a unit"):
        mean_by_step(values, steps[:, :2], 3)

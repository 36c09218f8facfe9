"""Means over the tokens of steps."""

from __future__ import annotations

import pytest
import torch

from diffpref.core.errors import ShapeError
from diffpref.likelihood import mean_by_step


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

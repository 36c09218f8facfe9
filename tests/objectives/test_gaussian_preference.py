"""P(the first is better) of two uncertain scores, by whoever asks for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffpref.objectives.pair_probability import PairModel, gaussian_preference


@pytest.mark.parametrize("deviation", [1e-4, 0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("gap", [-3.0, 0.0, 0.7, 12.0])
def test_the_probability_is_the_expected_sigmoid(gap: float, deviation: float) -> None:
    quarters = np.linspace(-60, 60, 2_000_001)  # of a logistic number L: E[sigmoid(z)] = P(L < z)
    density = 1 / (4 * np.cosh(quarters / 2) ** 2)
    below = torch.special.ndtr(torch.from_numpy((gap - quarters) / deviation)).numpy()
    expected = np.trapezoid(density * below, quarters)
    log_std = torch.tensor([math.log(deviation / math.sqrt(2))], dtype=torch.float64)
    mean, zero = torch.tensor([gap], dtype=torch.float64), torch.zeros(1).double()
    assert float(gaussian_preference(mean, log_std, zero, log_std)) == pytest.approx(expected, abs=1e-6)
    told = PairModel("gaussian")({"score": mean, "log_std": log_std}, {"score": zero, "log_std": log_std})
    assert float(told) == pytest.approx(expected, abs=1e-6)


def test_deviations_are_clamped_as_in_training() -> None:
    mean = torch.tensor([0.5])
    at_edge = gaussian_preference(mean, torch.tensor([10.0]), torch.zeros(1), torch.zeros(1))
    assert torch.equal(gaussian_preference(mean, torch.tensor([50.0]), torch.zeros(1), torch.zeros(1)), at_edge)
    sure = gaussian_preference(mean, torch.tensor([-99.0]), torch.zeros(1), torch.tensor([-99.0]))
    assert torch.allclose(sure, mean.sigmoid(), atol=1e-6)

"""Thurstonian utilities: items with a mean and a variance each, from how often one was preferred to another."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["fit_utilities", "thurstonian_probability"]

SPREAD = 1e-5
"""Added to variances under the root, as in the released code."""


def thurstonian_probability(
    *, first_mean: Tensor, second_mean: Tensor, first_variance: Tensor, second_variance: Tensor
) -> Tensor:
    """Return P(first is preferred) of utilities that are normally distributed: Phi of the gap in units of its spread.

    Source: Mazeika et al., Utility Engineering, arXiv:2502.08640; centerforaisafety/emergent-values thurstonian.

    >>> import torch
    >>> means = {"first_mean": torch.tensor(0.5), "second_mean": torch.tensor(0.0)}
    >>> variances = {"first_variance": torch.tensor(0.3), "second_variance": torch.tensor(0.2)}
    >>> round(thurstonian_probability(**means, **variances).item(), 5)
    0.76025
    """
    return torch.special.ndtr((first_mean - second_mean) / (first_variance + second_variance + SPREAD).sqrt())


def fit_utilities(
    pairs: Tensor, frequencies: Tensor, num_items: int, *, steps: int = 1000, learning_rate: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Return (N,) means, with mean 0 and standard deviation 1, and (N,) variances of utilities that explain choices.

    Adam on the cross-entropy of the observed frequencies. Means are standardised in every step, and variances scaled by
    the same factor, so that probabilities do not change.

    Args:
        pairs: (M, 2) int64: which two items were compared.
        frequencies: (M,) how often the first of them was preferred, in [0, 1].
        num_items: N, at least 2.
        steps: of Adam.
        learning_rate: of Adam.

    Raises:
        ShapeError: pairs and frequencies do not fit.

    Source: Mazeika et al., Utility Engineering, arXiv:2502.08640; centerforaisafety/emergent-values thurstonian.
    """
    if pairs.dim() != 2 or pairs.shape[1] != 2 or frequencies.shape != pairs.shape[:1]:
        raise ShapeError(
            f"pairs are {tuple(pairs.shape)}, frequencies {tuple(frequencies.shape)}; (M, 2), (M,) expected"
        )
    # Of all numbers alike no standardisation is defined: begin in the order of how often each was preferred.
    won = frequencies.new_zeros(num_items).index_add(0, pairs[:, 0], frequencies - 0.5)
    raw = won.index_add(0, pairs[:, 1], 0.5 - frequencies) + 1e-3 * torch.arange(num_items).to(frequencies)
    raw = ((raw - raw.mean()) / raw.std(unbiased=False)).requires_grad_()
    log_spread = torch.zeros_like(raw).detach().requires_grad_()
    optimizer = torch.optim.Adam([raw, log_spread], lr=learning_rate)
    first, second = pairs.unbind(dim=1)
    for _ in range(steps):
        optimizer.zero_grad()
        mean, variance = _standardised(raw, log_spread)
        probability = thurstonian_probability(
            first_mean=mean[first],
            second_mean=mean[second],
            first_variance=variance[first],
            second_variance=variance[second],
        )
        torch.nn.functional.binary_cross_entropy(probability.clamp(1e-7, 1 - 1e-7), frequencies).backward()
        optimizer.step()
    mean, variance = _standardised(raw.detach(), log_spread.detach())
    return mean, variance


def _standardised(raw: Tensor, log_spread: Tensor) -> tuple[Tensor, Tensor]:
    spread = raw.std(unbiased=False)
    return (raw - raw.mean()) / spread, (log_spread.exp() / spread).square()

"""What a loss of reward models takes for the probability that one item is better than another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diffpref.objectives.compose import Composition
from diffpref.objectives.general_preference import preference_score

__all__ = ["PairModel", "gaussian_preference", "pair_model"]


def gaussian_preference(
    first_mean: Tensor, first_log_std: Tensor, second_mean: Tensor, second_log_std: Tensor
) -> Tensor:
    r"""Return P(the first is better) of two uncertain scores.

    .. math:: P = \mathbb{E}\,[\sigma(z)], \qquad z \sim N(\mu_a - \mu_b,\; \sigma_a^2 + \sigma_b^2)

    The mean is a sum over 1001 even places within 8 deviations, exact to 1e-6 for deviations up to 40; Gauss-Hermite
    nodes, which serve the loss, miss the step that sigma(z) is when the deviation is large.

    Args:
        first_mean: (N,) mu of the first.
        first_log_std: (N,) logarithm of its sigma, clamped to [-10, 10] as in training.
        second_mean: (N,) mu of the second.
        second_log_std: (N,) logarithm of its sigma.

    Returns:
        (N,) probabilities in float32; those of the two orders add up to 1. float64 in is computed in float64.

    Source: Ma et al., HPSv3, arXiv 2508.03789, the model behind `uncertain_bradley_terry`.
    """
    nodes = torch.linspace(-8, 8, 1001, dtype=torch.float64, device=first_mean.device)
    shares = torch.exp(-nodes.square() / 2)
    logs = [part.double().clamp(-10, 10) for part in (first_log_std, second_log_std)]
    deviation = sum((2 * part).exp() for part in logs).sqrt()  # type: ignore[union-attr]
    gaps = (first_mean.double() - second_mean.double())[:, None] + deviation[:, None] * nodes
    return (gaps.sigmoid() @ (shares / shares.sum())).to(torch.promote_types(first_mean.dtype, torch.float32))


@dataclass(frozen=True)
class PairModel:
    r"""P(first is better) of two items that a reward model spoke of; a tie counts half for either.

    Args:
        kind: ``"logistic"``: :math:`\sigma(s\,d)` of the difference d of scores. ``"rao_kupper"``: with ties, of
            threshold eta. ``"gaussian"``: the logistic one, expected over two normal scores. ``"rotation"``: of two
            embeddings (GPM).
        scale: s above, or 1 / temperature.
        threshold: eta, half the width of ties in the score's unit.
        normalize: whether embeddings have length 1.
    """

    kind: Literal["logistic", "rao_kupper", "gaussian", "rotation"]
    scale: float = 1.0
    threshold: float = 0.0
    normalize: bool = False

    @property
    def pair_scale(self) -> float | None:
        """s where the probability is sigmoid(s * difference), else None."""
        return self.scale if self.kind == "logistic" else None

    def __call__(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """Return (N,) probabilities.

        Args:
            first: what the model said: ``score`` (N,), and ``log_std`` (N,) or ``embedding`` (N, E) where it says them.
            second: the same of the other items.
        """
        if self.kind == "rotation":
            one, other = first["embedding"], second["embedding"]
            if self.normalize:
                one, other = (torch.nn.functional.normalize(e, dim=-1) for e in (one, other))
            return torch.sigmoid(self.scale * preference_score(one, other))
        gap = self.scale * (first["score"] - second["score"])
        if self.kind == "logistic":
            return torch.sigmoid(gap)
        if self.kind == "rao_kupper":
            return (1 + torch.sigmoid(gap - self.threshold) - torch.sigmoid(-gap - self.threshold)) / 2
        return gaussian_preference(first["score"], first["log_std"], second["score"], second["log_std"])


def pair_model(composition: Composition) -> PairModel | None:
    """Return the probability that the first term which has one was trained with; None: it trains no probability."""
    for term in composition.terms:
        options: dict[str, Any] = term.options.model_dump()
        if term.spec.name == "bradley_terry":
            return PairModel("logistic", 1 / options["temperature"])
        if term.spec.name in ("pickscore", "reward_plackett_luce"):
            return PairModel("logistic")
        if term.spec.name == "bradley_terry_ties":
            return PairModel("rao_kupper", threshold=options["threshold"])
        if term.spec.name == "uncertain_bradley_terry":
            return PairModel("gaussian")
        if term.spec.name == "gpm" and options["link"] == "logistic":
            return PairModel("rotation", 1 / options["temperature"], normalize=options["normalize"])
    return None

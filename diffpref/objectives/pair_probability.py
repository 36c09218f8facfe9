"""What a loss of reward models takes for the probability that one item is better than another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diffpref.objectives.compose import Composition
from diffpref.objectives.general_preference import preference_score

__all__ = ["PairModel", "pair_model"]


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
        variance = (2 * first["log_std"].clamp(-10, 10)).exp() + (2 * second["log_std"].clamp(-10, 10)).exp()
        places, shares = np.polynomial.hermite_e.hermegauss(32)
        nodes, weights = gap.new_tensor(places), gap.new_tensor(shares / shares.sum())
        return (torch.sigmoid(gap[:, None] + variance.sqrt()[:, None] * nodes) * weights).sum(dim=1)


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

"""Multi-Objective DPO: prefer by one objective, with the others' rewards taken off the margin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import Number, Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected, logistic

__all__ = ["modpo"]


def _listed(value: Any) -> Any:
    """YAML has lists, options do not change."""
    return tuple(value) if isinstance(value, list) else value


@objective(
    "modpo",
    kind="pairwise",
    source="Zhou et al., Beyond One-Preference-Fits-All Alignment: Multi-Objective Direct Preference Optimization,"
    " arXiv:2310.03708",
    evidence="official",
)
def modpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    weight: Annotated[Number, Field(ge=0.05, le=1)] = 0.5,
    score_weights: Annotated[tuple[Number, ...], BeforeValidator(_listed)] | None = None,
    link: Literal["sigmoid", "hinge"] = "sigmoid",
) -> Tensor:
    r"""Train for a weighted sum of objectives, of which the pair's label tells only the first.

    .. math:: \ell = -\log\sigma\Big(\frac{1}{w_0}\Big(\beta\,(\Delta_w - \Delta_l)
              - \sum_{k \ge 1} w_k\,(m_k(x_w) - m_k(x_l))\Big)\Big)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_scores: (B, M) rewards m of the other objectives, such as implicit rewards of models trained on them. No
            gradient.
        rejected_scores: (B, M) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        weight: w_0 above, of the objective that the labels tell; at least 0.05, because the loss diverges at 0.
        score_weights: w_1 ... w_M; where not given, equal shares of what w_0 leaves of 1.
        link: how a margin z becomes a loss: ``hinge`` is max(0, 1 - z).

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: another number of weights than of rewards.

    Source: Zhou et al., Multi-Objective Direct Preference Optimization, ACL Findings 2024; code: ZHZisZZ/modpo
    ``modpo_loss``.
    Reduces to: `dpo` at weight=1; `dpo` with beta / w_0 where both samples are equal in all other objectives.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> scores = {"chosen_scores": torch.tensor([[0.4, 1.0]]), "rejected_scores": torch.tensor([[0.1, 0.7]])}
    >>> round(modpo(**ratios, **scores, score_weights=(0.3, 0.2)).item(), 6)
    0.713347
    """
    count = chosen_scores.shape[1]
    shares = ((1 - weight) / count,) * count if score_weights is None else score_weights
    if len(shares) != count:
        raise ConfigError(f"modpo: score_weights has {len(shares)} numbers, chosen_scores {count} rewards a sample")
    others = chosen_scores.new_tensor(shares)

    def compared(better: Tensor, worse: Tensor) -> Tensor:
        margin = (better - worse) / weight
        return relu(1 - margin) if link == "hinge" else logistic(margin)

    chosen = beta * chosen_log_ratio - chosen_scores @ others
    rejected = beta * rejected_log_ratio - rejected_scores @ others
    return expected(compared, preference, chosen, rejected)

"""LiPO: lists of scored candidates, compared in pairs (with or without lambda weights) or one by one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lambda_rank import lambda_loss
from diffpref.objectives.lists import both, check_within, filled, pairs_of, there

__all__ = ["lipo_lambda", "lipo_pairwise", "lipo_pointwise", "unit_labels"]

Labels = Literal["as_given", "minmax"]

SOURCE = "Liu et al., arXiv:2402.01878"


def unit_labels(name: str, scores: Tensor, mask: Tensor, labels: Labels) -> Tensor:
    """Return (B, K) labels in [0, 1]: the scores, or each list's brought there; 0 where no candidate is.

    Raises:
        ConfigError: scores outside of [0, 1] that are to be taken as they are.
    """
    if labels == "minmax":
        low = filled(scores, mask, float("inf")).amin(dim=1, keepdim=True)
        high = filled(scores, mask, float("-inf")).amax(dim=1, keepdim=True)
        span = torch.where(high > low, high - low, torch.ones_like(high))
        return filled((scores - low) / span, mask)
    scores = filled(scores, mask)
    check_within(name, "list_scores", scores, 0.0, 1.0, "set labels=minmax to bring each list there")
    return scores


@objective(
    "lipo_lambda",
    kind="listwise",
    source=f"{SOURCE}, eq. 9",
    evidence="secondary",
    aliases=("lipo",),
    signs={},
    domain={"list_scores": (0.0, 1.0)},
)
def lipo_lambda(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=2500.0),
    labels: Labels = "as_given",
) -> Tensor:
    r"""Order a list by its labels, and care most for the pairs that matter most to the ranking's gain.

    .. math:: \ell = \sum_{\psi_i > \psi_j} \Delta_{ij} \log\big(1 + e^{-(s_i - s_j)}\big), \qquad
              \Delta_{ij} = |2^{\psi_i} - 2^{\psi_j}| \;
              \Big|\frac{1}{\log(1 + r_i)} - \frac{1}{\log(1 + r_j)}\Big|, \qquad s = \beta \Delta

    Ranks r, from 1, are those of the current s; neither they nor the weights carry gradient.

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_scores: (B, K) labels psi in [0, 1], larger is better, such as mean win rates. Equal ones form no pair.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: inverse temperature; larger keeps closer to the reference.
        labels: ``"as_given"`` refuses scores outside of [0, 1], whose exponential gains would know no bound;
            ``"minmax"`` brings each list to [0, 1] first.

    Returns:
        (B,) non-negative losses, unreduced: sums over pairs.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.
        ConfigError: scores outside of [0, 1] with ``labels="as_given"``.

    Source: Liu et al., LiPO: Listwise Preference Optimization through Learning-to-Rank, NAACL 2025 Findings, eq. 9,
    which prints a leading minus; as a loss to minimise it is the positive form. There is no official code.
    Reduces to: `dpo` times ``|psi_1 - psi_2| * (1 / log 2 - 1 / log 3)`` = 0.532456 for K = 2 and labels 1 and 0.

    >>> import torch
    >>> ratios, scores = torch.tensor([[0.7, -0.3]]), torch.tensor([[1.0, 0.0]])
    >>> round(lipo_lambda(list_log_ratio=ratios, list_scores=scores, beta=1.0).item(), 6)
    0.166798
    """
    present = there("lipo_lambda", list_scores, list_mask)
    psi = unit_labels("lipo_lambda", list_scores, present, labels)
    return lambda_loss(beta * filled(list_log_ratio, present), psi, present)


@objective(
    "lipo_pairwise",
    kind="listwise",
    source=f"{SOURCE}, eq. 5 and 6",
    evidence="secondary",
    aliases=("list_logistic",),
    signs={},
)
def lipo_pairwise(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    link: Literal["logistic", "hinge"] = "logistic",
    target_margin: NonNegative = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    r"""Compare every pair of a list that its scores tell apart, all alike.

    .. math:: \ell = \operatorname*{mean}_{\psi_i > \psi_j} \log\big(1 + e^{-(s_i - s_j)}\big)
              \;\text{ or }\; \operatorname*{mean}_{\psi_i > \psi_j} \max(0,\; \delta - (s_i - s_j)),
              \qquad s = \beta \Delta

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_scores: (B, K) larger is better, in any unit: only their order counts.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: inverse temperature; larger keeps closer to the reference.
        link: logistic is DPO's Bradley-Terry model, hinge is SLiC's.
        target_margin: delta of the hinge, in implicit-reward units.
        reduction: over the pairs of a list; a list without pairs gives 0.

    Returns:
        (B,) non-negative losses, unreduced over the batch.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Liu et al., LiPO, NAACL 2025 Findings, section 3.2 (DPO-BT and SLiC on lists). There is no official code.
    Reduces to: `dpo` for K = 2 with the logistic link.

    >>> import torch
    >>> ratios, scores = torch.tensor([[0.5, -0.8]]), torch.tensor([[9.0, 4.0]])
    >>> round(lipo_pairwise(list_log_ratio=ratios, list_scores=scores, beta=0.1).item(), 6)
    0.630258
    """
    present = there("lipo_pairwise", list_scores, list_mask)
    margin = beta * pairs_of(filled(list_log_ratio, present))
    counts = (pairs_of(filled(list_scores, present)) > 0) & both(present)
    losses = -logsigmoid(margin) if link == "logistic" else (target_margin - margin).clamp(min=0)
    total = filled(losses, counts).sum(dim=(1, 2))
    return total if reduction == "sum" else total / counts.sum(dim=(1, 2)).clamp(min=1)


@objective(
    "lipo_pointwise",
    kind="listwise",
    source=f"{SOURCE}, section 3.1",
    evidence="secondary",
    signs={},
    domain={"list_scores": (0.0, 1.0)},
)
def lipo_pointwise(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    link: Literal["square", "logistic"] = "square",
    labels: Labels = "as_given",
) -> Tensor:
    r"""Fit each candidate's implicit reward to its label, without comparing candidates.

    .. math:: \ell = \sum_k (s_k - \psi_k)^2 \;\text{ or }\;
              -\sum_k \psi_k \log\sigma(s_k) + (1 - \psi_k) \log\sigma(-s_k), \qquad s = \beta \Delta

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_scores: (B, K) labels psi in [0, 1], larger is better, such as mean win rates.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: inverse temperature; larger keeps closer to the reference.
        link: squared error, or cross-entropy.
        labels: ``"as_given"`` refuses scores outside of [0, 1]; ``"minmax"`` brings each list there first.

    Returns:
        (B,) non-negative losses, unreduced: sums over candidates.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.
        ConfigError: scores outside of [0, 1] with ``labels="as_given"``.

    Source: Liu et al., LiPO, NAACL 2025 Findings, section 3.1 (pointwise baselines). There is no official code.
    Reduces to: least squares, or logistic regression, on ``beta * log_ratio``.

    >>> import torch
    >>> ratios, scores = torch.tensor([[2.0, -3.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(lipo_pointwise(list_log_ratio=ratios, list_scores=scores, beta=0.1).item(), 4)
    0.73
    """
    present = there("lipo_pointwise", list_scores, list_mask)
    psi = unit_labels("lipo_pointwise", list_scores, present, labels)
    reward = beta * filled(list_log_ratio, present)
    if link == "square":
        losses = (reward - psi).square()
    else:
        losses = -psi * logsigmoid(reward) - (1 - psi) * logsigmoid(-reward)
    return filled(losses, present).sum(dim=1)

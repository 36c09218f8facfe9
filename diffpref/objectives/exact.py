"""Efficient Exact Optimization: the reverse KL from the policy's choice among samples to the preferred choice."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lists import there

__all__ = ["exo", "exo_pair"]

Smoothing = Annotated[Number, Field(gt=0, lt=0.5)]
UNLIKELY = -10.0
"""The official code's log-probability that the rejected sample is better; that of the chosen one is 0."""


@objective(
    "exo_pair",
    kind="pairwise",
    source="Ji et al., Towards Efficient Exact Optimization of Language Model Alignment, arXiv:2402.00856, eq. 16",
    evidence="official",
    signs={},
)
def exo_pair(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    label_smoothing: Smoothing = 0.001,
    target: Literal["smoothed", "official"] = "smoothed",
) -> Tensor:
    r"""Bring the policy's choice between two samples to the preferred one, seeking its mode.

    .. math:: \ell = \sum_k q_k\,(\log q_k - \log p_k), \qquad q = (\sigma(m), \sigma(-m)), \quad
              m = \beta\,(\Delta_w - \Delta_l), \quad p = (1 - \epsilon, \epsilon)

    Unlike DPO's, its gradient vanishes for pairs that the policy orders wrongly by far.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; the target is the mixture of both orders. 1 where the batch has
            no such column. No gradient.
        beta: as of `dpo`.
        label_smoothing: epsilon above, in (0, 0.5); at 0 the loss would be infinite.
        target: ``official`` is the released code's p = (1, e^-10), which is not normalised and leaves epsilon out.

    Returns:
        (B,) losses, unreduced, with the minimum where m = log((1 - epsilon) / epsilon); 0 there with ``smoothed``.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Ji et al., EXO, ICML 2024, eq. 16; code: haozheji/exact-optimization ``exact_loss``, TRL
    ``loss_type="exo_pair"``.
    Reduces to: `cdpo` with the two distributions exchanged, to the entropy of the target; `exo` of a list of two.

    >>> import torch
    >>> loss = exo_pair(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    2.539185
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    high, low = (1 - label_smoothing, label_smoothing) if target == "smoothed" else (1.0, math.exp(UNLIKELY))
    certain = torch.ones_like(margin) if preference is None else preference
    chosen_target = certain * high + (1 - certain) * low
    rejected_target = certain * low + (1 - certain) * high
    chosen = margin.sigmoid() * (logsigmoid(margin) - chosen_target.log())
    rejected = (-margin).sigmoid() * (logsigmoid(-margin) - rejected_target.log())
    return chosen + rejected


@objective(
    "exo",
    kind="listwise",
    source="Ji et al., Towards Efficient Exact Optimization of Language Model Alignment, arXiv:2402.00856",
    evidence="official",
    signs={},
)
def exo(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    reward_temperature: Positive = 1.0,
) -> Tensor:
    r"""Bring the policy's choice among K samples to that of their rewards, seeking its mode.

    .. math:: \ell = \mathrm{KL}\big(\mathrm{softmax}(\beta\,\Delta) \,\|\, \mathrm{softmax}(r / \beta_r)\big)

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_scores: (B, K) rewards r. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: as of `dpo`.
        reward_temperature: beta_r above.

    Returns:
        (B,) non-negative losses, unreduced; 0 where the two choices agree.

    Raises:
        ShapeError: the tensors differ in shape, or a list has fewer than two candidates.

    Source: Ji et al., EXO, ICML 2024; code: haozheji/exact-optimization ``exact_loss``.
    Reduces to: `exo_pair` for lists of two whose scores differ by beta_r log((1 - epsilon) / epsilon).

    >>> import torch
    >>> loss = exo(list_log_ratio=torch.tensor([[1.0, 0.0]]), list_scores=torch.tensor([[1.0, 0.0]]), beta=1.0)
    >>> round(loss.item(), 6)
    0.0
    """
    absent = ~there("exo", list_scores, list_mask)
    own = (beta * list_log_ratio).masked_fill(absent, -torch.inf).log_softmax(dim=1)
    wanted = (list_scores / reward_temperature).masked_fill(absent, -torch.inf).log_softmax(dim=1)
    gap = torch.where(absent, 0.0, own) - torch.where(absent, 0.0, wanted)
    return (own.exp() * gap).sum(dim=1)

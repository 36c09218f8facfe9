"""Lambda-weighted ranking: a logistic loss on every pair of a list, weighted by what swapping the two would cost.

`lambda_loss` is the one formula of RankDPO (images) and of LiPO-lambda (text), which differ in where ranks come from.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective

__all__ = ["RankSource", "lambda_loss", "rank_dpo"]

RankSource = Literal["target", "predicted"]


def lambda_loss(
    *, logits: Tensor, scores: Tensor, mask: Tensor | None, rank_source: RankSource, log_base: float = math.e
) -> tuple[Tensor, Tensor]:
    r"""Return the lambda-weighted logistic loss of each list, and how many pairs it compares.

    .. math:: \sum_{\phi_i > \phi_j} \Delta_{ij} \log(1 + e^{-(s_i - s_j)}), \qquad
              \Delta_{ij} = |2^{\phi_i} - 2^{\phi_j}| \left|\frac{1}{D(\tau_i)} - \frac{1}{D(\tau_j)}\right|

    with :math:`D(\tau) = \log(1 + \tau)` and ranks from 1. Ties in what is ranked keep the order of the list.

    Args:
        logits: (B, K) what is learned, s above.
        scores: (B, K) phi, best within [0, 1]; gains grow exponentially with it. No gradient.
        mask: (B, K) 1 where there is a candidate; None: everywhere.
        rank_source: whether ranks follow ``scores`` or the ``logits`` themselves. No gradient flows through ranks.
        log_base: of the discount.

    Returns:
        (B,) sums over the pairs with different scores, and (B,) the number of pairs of candidates.
    """
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask > 0
    logits, scores = torch.where(there, logits, 0.0), torch.where(there, scores, 0.0)
    ranked = scores if rank_source == "target" else logits.detach()
    places = torch.where(there, ranked, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    discount = math.log(log_base) / torch.log(2.0 + places.to(scores.dtype))
    gain = torch.exp2(scores)
    weights = (_differences(gain) * _differences(discount)).abs()
    both = there[:, :, None] & there[:, None, :]
    better = both & (scores[:, :, None] > scores[:, None, :])
    losses = torch.where(better, weights * softplus(-_differences(logits)), 0.0).sum(dim=(1, 2))
    return losses, both.triu(diagonal=1).sum(dim=(1, 2)).to(losses.dtype)


def _differences(values: Tensor) -> Tensor:
    """Entry [i, j]: the i-th of each list minus the j-th."""
    return values[:, :, None] - values[:, None, :]


@objective(
    "rank_dpo",
    kind="listwise",
    source="Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, arXiv:2410.18013,"
    " eq. 6 and 7",
    evidence="paper",
    aliases=("rankdpo",),
    published=("denoising",),
)
def rank_dpo(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=5000.0),
    log_base: Literal["e", "2"] = "e",
    rank_source: RankSource = "target",
    pair_norm: Literal["sum", "mean"] = "sum",
) -> Tensor:
    r"""Rank K candidates of one prompt, giving most weight to the pairs whose order matters most to DCG.

    .. math:: \ell = -\sum_{\phi_i > \phi_j} \Delta_{ij} \log\sigma(\beta\,(h_i - h_j)), \qquad
              \Delta_{ij} = |2^{\phi_i} - 2^{\phi_j}|
              \left|\frac{1}{\log(1 + \tau_i)} - \frac{1}{\log(1 + \tau_j)}\right|

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate, h above.
        list_scores: (B, K) phi in [0, 1]: the share of comparisons that a candidate wins
            (`diffpref.ranking.win_shares`). Equal scores give a pair no weight. No gradient.
        list_mask: (B, K) 1 where there is a candidate; everywhere where the batch has no such column.
        beta: inverse temperature. The paper prints no factor 0.5, so its beta on a denoiser is half of this one; it
            publishes none.
        log_base: of the discount; the paper prints "log" and means the natural one.
        rank_source: ranks follow the scores, as in the paper's eq. 6, or the policy's own log-ratios, as in LiPO-lambda
            and in the paper's prose.
        pair_norm: the published sum over pairs, or their mean over all K (K - 1) / 2.

    Returns:
        (B,) non-negative losses, unreduced; ln 2 times the sum of the weights where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, ICCV 2025, eq. 6 and
    7, algorithm 2 (whose weight lacks the absolute value that eq. 6 has).
    Reduces to: `dpo` times 0.5324558 for two candidates with scores 1 and 0.

    >>> import torch
    >>> loss = rank_dpo(list_log_ratio=torch.zeros(1, 2), list_scores=torch.tensor([[1.0, 0.0]]))
    >>> round(loss.item(), 6)
    0.36907
    """
    base = {"e": math.e, "2": 2.0}[log_base]
    losses, pairs = lambda_loss(
        logits=beta * list_log_ratio, scores=list_scores, mask=list_mask, rank_source=rank_source, log_base=base
    )
    return losses if pair_norm == "sum" else losses / pairs

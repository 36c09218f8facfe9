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
from diffpref.objectives.lists import both, check_within, filled, pairs_of, there

__all__ = ["RankSource", "lambda_loss", "lambda_weights", "rank_dpo"]

RankSource = Literal["target", "predicted"]


def lambda_loss(
    rewards: Tensor, scores: Tensor, mask: Tensor, rank_source: RankSource = "predicted", log_base: float = math.e
) -> Tensor:
    r"""Return (B,) lambda-weighted logistic losses, summed over the pairs of unequal scores.

    .. math:: \sum_{\psi_i > \psi_j} \Delta_{ij} \log(1 + e^{-(s_i - s_j)}), \qquad
              \Delta_{ij} = |2^{\psi_i} - 2^{\psi_j}| \left|\frac{1}{D(\tau_i)} - \frac{1}{D(\tau_j)}\right|

    with :math:`D(\tau) = \log(1 + \tau)` and ranks from 1. Ties in what is ranked keep the order of the list. Neither
    ranks nor weights carry gradient.

    Args:
        rewards: (B, K) what is learned, s above, finite also where no candidate is.
        scores: (B, K) psi, larger is better, best within [0, 1]: gains grow exponentially with it.
        mask: (B, K) booleans: where a candidate is.
        rank_source: whether ranks follow the rewards (``"predicted"``) or the scores (``"target"``).
        log_base: of the discount.
    """
    weights = lambda_weights(scores, scores if rank_source == "target" else rewards, mask, log_base)
    counts = (pairs_of(scores) > 0) & both(mask)
    return filled(weights * softplus(-pairs_of(rewards)), counts).sum(dim=(1, 2))


def lambda_weights(scores: Tensor, ranked: Tensor, mask: Tensor, log_base: float = math.e) -> Tensor:
    """Return (B, K, K) what it would cost in DCG to swap two candidates, the weights of `lambda_loss`.

    Args:
        scores: (B, K) psi, larger is better.
        ranked: (B, K) what ranks follow, larger is better.
        mask: (B, K) booleans: where a candidate is; what is said of others has no meaning.
        log_base: of the discount.
    """
    order = filled(ranked, mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).to(ranked.dtype) + 1
    discount = pairs_of(math.log(log_base) / torch.log1p(rank)).abs()
    return pairs_of(torch.exp2(scores)).abs() * discount


@objective(
    "rank_dpo",
    kind="listwise",
    source="Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, arXiv:2410.18013,"
    " eq. 6 and 7",
    evidence="paper",
    aliases=("rankdpo",),
    published=("denoising",),
    domain={"list_scores": (0.0, 1.0)},
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
    labels: Literal["as_given", "win_shares"] = "as_given",
) -> Tensor:
    r"""Rank K candidates of one prompt, giving most weight to the pairs whose order matters most to DCG.

    .. math:: \ell = -\sum_{\phi_i > \phi_j} \Delta_{ij} \log\sigma(\beta\,(h_i - h_j)), \qquad
              \Delta_{ij} = |2^{\phi_i} - 2^{\phi_j}|
              \left|\frac{1}{\log(1 + \tau_i)} - \frac{1}{\log(1 + \tau_j)}\right|

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate, h above.
        list_scores: (B, K) phi in [0, 1]: the share of comparisons that a candidate wins, over several rewards
            (`diffpref.ranking.win_shares`). Equal ones give a pair no weight. No gradient.
        list_mask: (B, K) 1 where there is a candidate; everywhere where the batch has no such column.
        beta: inverse temperature. The paper prints no factor 0.5, so its beta on a denoiser is half of this one; it
            publishes none.
        log_base: of the discount; the paper prints "log" and means the natural one.
        rank_source: ranks follow the scores, as in the paper's eq. 6, or the policy's own log-ratios, as in LiPO-lambda
            and in the paper's prose.
        pair_norm: the published sum over pairs, or their mean over all K (K - 1) / 2.
        labels: ``"as_given"`` refuses scores outside of [0, 1], whose exponential gains would know no bound;
            ``"win_shares"`` takes scores of one reward, in any unit, and makes them shares: phi with that reward alone.

    Returns:
        (B,) non-negative losses, unreduced; ln 2 times the sum of the weights where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape, or a list has fewer than two candidates.
        ConfigError: scores outside of [0, 1] with ``labels: as_given``.

    Source: Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, ICCV 2025, eq. 6 and
    7, algorithm 2 (whose weight lacks the absolute value that eq. 6 has).
    Reduces to: `dpo` times 0.5324558 for two candidates with scores 1 and 0.

    >>> import torch
    >>> loss = rank_dpo(list_log_ratio=torch.zeros(1, 2), list_scores=torch.tensor([[1.0, 0.0]]))
    >>> round(loss.item(), 6)
    0.36907
    """
    present = there("rank_dpo", list_scores, list_mask)
    rewards, phi = filled(beta * list_log_ratio, present), filled(list_scores, present)
    if labels == "win_shares":
        wins = (pairs_of(phi) > 0) & both(present)
        phi = wins.to(phi.dtype).sum(dim=2) / (present.sum(dim=1, keepdim=True) - 1)
    else:
        check_within("rank_dpo", "list_scores", phi, 0.0, 1.0, "set labels: win_shares for scores of a reward")
    losses = lambda_loss(rewards, phi, present, rank_source, {"e": math.e, "2": 2.0}[log_base])
    if pair_norm == "sum":
        return losses
    return losses / both(present).triu(diagonal=1).sum(dim=(1, 2))

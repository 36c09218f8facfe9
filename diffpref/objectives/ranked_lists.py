"""Whole lists at once: Plackett-Luce, soft targets over the candidates, and preference ranking (PRO)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, PositiveInt, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lists import check_within, filled, per_length, there

__all__ = ["dpo_plackett_luce", "list_softmax_ce", "plackett_luce", "pro"]


@objective(
    "dpo_plackett_luce",
    kind="listwise",
    source="Rafailov et al., arXiv:2305.18290, appendix A.3; Liu et al., arXiv:2402.01878 (DPO-PL)",
    evidence="memory",
    aliases=("dpo_pl", "listmle"),
    signs={},
)
def dpo_plackett_luce(
    *,
    list_log_ratio: Tensor,
    ranks: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    top: PositiveInt | None = None,
) -> Tensor:
    r"""Make the whole ranking likely: the best of all is picked first, then the best of the rest, and so on.

    .. math:: \ell = -\sum_{k=1}^{K-1} \Big[ s_{(k)} - \log \sum_{j \ge k} e^{s_{(j)}} \Big], \qquad s = \beta \Delta

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        ranks: (B, K) 0 = best; equal ranks are taken in the order of the list. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: inverse temperature; larger keeps closer to the reference.
        top: only this many picks count; all where not given.

    Returns:
        (B,) non-negative losses, unreduced, not divided by K; log(K!) where policy and reference agree.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Rafailov et al., Direct Preference Optimization, NeurIPS 2023, appendix; Liu et al., LiPO, NAACL 2025.
    Reduces to: `dpo` for K = 2; `list_softmax_ce` with the best for a target at top=1.

    >>> import torch
    >>> ratios, ranks = torch.tensor([[0.5, -0.8]]), torch.tensor([[0, 1]])
    >>> round(dpo_plackett_luce(list_log_ratio=ratios, ranks=ranks, beta=0.1).item(), 6)
    0.630258
    """
    present = there("dpo_plackett_luce", ranks, list_mask)
    return plackett_luce(beta * filled(list_log_ratio, present), ranks, present, top)


def plackett_luce(rewards: Tensor, ranks: Tensor, mask: Tensor, top: int | None) -> Tensor:
    """Return (B,) negative log-likelihoods of rankings: picked one after another in proportion to ``exp(reward)``.

    Args:
        rewards: (B, K), finite also where no candidate is.
        ranks: (B, K) 0 = best.
        mask: (B, K) booleans: where a candidate is.
        top: how many picks count; None: all.
    """
    place = filled(ranks, mask, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
    # Row i: what is left when i is picked. Rows of absent candidates keep what is finite; they are left out below.
    left = (place.unsqueeze(1) >= place.unsqueeze(2)) & (mask.unsqueeze(1) | ~mask.unsqueeze(2))
    total = filled(rewards.unsqueeze(1).expand_as(left), left, -math.inf).logsumexp(dim=2)
    counts = mask if top is None else mask & (place < top)
    return filled(total - rewards, counts).sum(dim=1)


@objective(
    "list_softmax_ce",
    kind="listwise",
    source="Liu et al., arXiv:2402.01878, eq. 7; Chen et al., arXiv:2402.05369 (InfoNCA)",
    evidence="secondary",
    aliases=("infonca", "lambda_dpo"),
    signs={},
    domain={"list_scores": (0.0, math.inf)},
)
def list_softmax_ce(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    target: Literal["softmax", "share", "best"] = "softmax",
    temperature: Positive = 1.0,
) -> Tensor:
    r"""Match the policy's choice among the candidates to a soft target made of their scores.

    .. math:: \ell = -\sum_k q_k \log \frac{e^{s_k}}{\sum_j e^{s_j}}, \qquad s = \beta \Delta

    Several aims at once are a sum of terms: the loss is linear in q, so that the target of weights lambda over aims is
    the same as one term an aim with lambda for a coefficient.

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_scores: (B, K) psi, larger is better. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: inverse temperature; larger keeps closer to the reference.
        target: q: ``"softmax"`` of psi / temperature; ``"share"``: psi / sum of psi, which must be non-negative;
            ``"best"``: 1 for the best-scored candidate, the first of equals (softmax-DPO with several negatives).
        temperature: of ``target="softmax"``, in the unit of the scores.

    Returns:
        (B,) non-negative losses, unreduced; log K where policy and reference agree.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.
        ConfigError: negative scores with ``target="share"``.

    Source: Liu et al., LiPO, NAACL 2025 Findings, eq. 7; InfoNCA of Chen et al., NeurIPS 2024.
    Reduces to: `dpo` for K = 2 with ``target="best"``.

    >>> import torch
    >>> ratios, scores = torch.tensor([[0.5, -0.8]]), torch.tensor([[1.0, 0.0]])
    >>> round(list_softmax_ce(list_log_ratio=ratios, list_scores=scores, beta=0.1, target="best").item(), 6)
    0.630258
    """
    present = there("list_softmax_ce", list_scores, list_mask)
    if target == "softmax":
        wanted = filled(list_scores / temperature, present, -math.inf).softmax(dim=1)
    elif target == "share":
        scores = filled(list_scores, present)
        hint = "set target=softmax for scores of any sign"
        check_within("list_softmax_ce", "list_scores", scores, 0.0, math.inf, hint)
        wanted = scores / scores.sum(dim=1, keepdim=True)
    else:
        best = filled(list_scores, present, -math.inf).argmax(dim=1)
        wanted = torch.nn.functional.one_hot(best, list_scores.shape[1])
    chosen = filled(beta * list_log_ratio, present, -math.inf).log_softmax(dim=1)
    return -(wanted * filled(chosen, present)).sum(dim=1)


@objective(
    "pro",
    kind="listwise",
    source="Song et al., arXiv:2306.17492, eq. 7 and 8; DAMO-ConvAI PRO process_manager.py compute_loss",
    evidence="official",
    signs={},
)
def pro(
    *,
    policy_list_logps: Tensor,
    list_scores: Tensor,
    list_length: Tensor | None = None,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=1.0, denoising=50000.0),
    sft_weight: NonNegative = 0.05,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Pick the best of the list, then the best of the rest, the more sharply the wider their rewards lie apart.

    .. math:: \ell = \sum_{k=1}^{K-1} \Big[ \log\Big(10^{-10} + e^{p_k T_{kk}} + \sum_{j>k} e^{p_j T_{kj}}\Big)
              - p_k T_{kk} \Big] - w\,(K - 1)^2 \, \beta \log\pi_\theta(x_1)

    with candidates from the best-scored on, :math:`p_k = \beta \log\pi_\theta(x_k) / n_k`,
    :math:`T_{kj} = R_k - R_j` and :math:`T_{kk} = \max_j T_{kj}`. There is no reference; the last term keeps the policy
    from making all candidates unlikely.

    Args:
        policy_list_logps: (B, K) log-likelihood of each candidate under the policy.
        list_scores: (B, K) rewards R, larger is better, in any order and any unit: their differences are inverse
            temperatures. No gradient.
        list_length: (B, K) tokens of each response; needed with ``length_normalize``. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: factor before log-likelihoods, 1 in the source; on denoisers' numbers it brings them to the scale of nats.
        sft_weight: w, of the summed log-likelihood of the best candidate.
        length_normalize: n is the length, as in the source; else 1. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.
        ConfigError: ``length_normalize`` without lengths.

    Source: Song et al., Preference Ranking Optimization for Human Alignment, AAAI 2024; constants follow the official
    code. The paper writes the reciprocal of T, and its minimum.
    Reduces to: logistic regression on ``(p_1 - p_2) * (R_1 - R_2)`` for K = 2 at sft_weight=0.

    >>> import torch
    >>> lists = {"policy_list_logps": torch.tensor([[-10.0, -18.0]]), "list_scores": torch.tensor([[1.0, 0.0]])}
    >>> round(pro(**lists, list_length=torch.tensor([[10.0, 9.0]]), sft_weight=0.0).item(), 6)
    0.313262
    """
    present = there("pro", list_scores, list_mask)
    logps = filled(beta * policy_list_logps, present)
    mean = filled(per_length("pro", length_normalize, beta * policy_list_logps, list_length, present), present)
    order = filled(list_scores, present, -math.inf).argsort(dim=1, descending=True, stable=True)
    rewards, mean = filled(list_scores, present).gather(1, order), mean.gather(1, order)
    exists = present.gather(1, order)
    size = exists.sum(dim=1, keepdim=True)
    worst = rewards.gather(1, size - 1)
    own = mean * (rewards - worst)  # p_k T_kk
    rivals = mean.unsqueeze(1) * (rewards.unsqueeze(2) - rewards.unsqueeze(1))  # row k, column j: p_j T_kj
    later = torch.ones_like(rivals, dtype=torch.bool).triu(diagonal=1) & exists.unsqueeze(1)
    tiny = torch.full_like(own, math.log(1e-10)).unsqueeze(2)
    terms = torch.cat([tiny, own.unsqueeze(2), filled(rivals, later, -math.inf)], dim=2)
    picks = filled(terms.logsumexp(dim=2) - own, later.any(dim=2)).sum(dim=1)
    best = logps.gather(1, order[:, :1])
    return picks - sft_weight * ((size - 1).square() * best).squeeze(1)

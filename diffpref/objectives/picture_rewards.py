"""Losses of the published reward models of pictures and clips: PickScore, HPS v2, HPS v3, VideoAlign."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Number, PositiveInt
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective
from diffpref.objectives.lists import filled, there
from diffpref.objectives.pair_links import logistic
from diffpref.objectives.reward_models import tie_cost

__all__ = ["bradley_terry_aspects", "expected_win", "hps_ranking", "pickscore", "uncertain_bradley_terry"]

LN_5 = math.log(5)
"""The threshold of VideoAlign's ties."""


@objective(
    "pickscore",
    kind="pairwise",
    source="Kirstain et al., arXiv:2305.01569, section 4; yuvalkirstain/PickScore clip_criterion.py",
    evidence="official",
    aliases=("rm_pickscore", "soft_label_kl"),
    published=("score",),
    signs={"policy_chosen_score": "-", "policy_rejected_score": "+"},
)
def pickscore(
    *, policy_chosen_score: Tensor, policy_rejected_score: Tensor, preference: Tensor | None = None
) -> Tensor:
    r"""PickScore's criterion: how far the model's preference is from the label, ties included.

    .. math:: \ell = \mathrm{KL}\big((p, 1 - p) \,\|\, \mathrm{softmax}(r_w, r_l)\big)

    Every prompt weighs alike in the paper: ``data.equal_prompts`` divides the weight of a pair by how many its prompt
    has.

    Args:
        policy_chosen_score: (B,) r, score of the chosen sample by the model in training: tau times a cosine.
        policy_rejected_score: (B,) the same of the rejected sample.
        preference: (B,) p, P(chosen is better), 1/2 for a tie; 1 where the batch has no such column. No gradient.

    Returns:
        (B,) losses >= 0, unreduced; 0 where the model's preference is the label's.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Kirstain et al., Pick-a-Pic, NeurIPS 2023; the constant that makes a tie's minimum 0 as in the official
    code.
    Reduces to: `bradley_terry` for certain labels; for others it differs by a constant.

    >>> import torch
    >>> one = {"policy_chosen_score": torch.tensor([1.2]), "policy_rejected_score": torch.tensor([0.7])}
    >>> round(pickscore(**one).item(), 6), round(pickscore(**one, preference=torch.tensor([0.5])).item(), 6)
    (0.474077, 0.03093)
    """
    losses = logistic(policy_chosen_score - policy_rejected_score, preference)
    if preference is None:
        return losses
    return losses + torch.xlogy(preference, preference) + torch.xlogy(1 - preference, 1 - preference)


@objective(
    "hps_ranking",
    kind="listwise",
    source="Wu et al., arXiv:2306.09341; tgxs002/HPSv2 loss.py RankingLoss",
    evidence="official",
    aliases=("rm_hpsv2_ranking",),
    published=("score",),
    signs={},
)
def hps_ranking(
    *,
    policy_list_score: Tensor,
    ranks: Tensor,
    list_mask: Tensor | None = None,
    margin: NonNegative = 1.0,
    legacy: bool = False,
) -> Tensor:
    r"""HPS v2's ranking loss: a hinge on every two of a list, whose slope grows with the difference of ranks.

    .. math:: \ell = \mathrm{mean}_{r_i < r_j} \max\big(0,\; m - (r_j - r_i)(s_i - s_j)\big)

    Args:
        policy_list_score: (B, K) s, score of each candidate by the model in training.
        ranks: (B, K) 0 = best; two of one rank are not compared. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        margin: m above, in the unit of the scores.
        legacy: as the official code computes it: what is missing counts as a candidate of score -1 and rank 9, and ties
            and candidates against themselves enter the mean.

    Returns:
        (B,) non-negative losses, unreduced; 0 for a list of equal ranks.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Wu et al., Human Preference Score v2, 2023; the masked form is ours.
    Reduces to: the hinge max(0, m - (r_w - r_l)) for K = 2.

    >>> import torch
    >>> round(hps_ranking(policy_list_score=torch.tensor([[1.2, 0.7]]), ranks=torch.tensor([[0, 1]])).item(), 6)
    0.5
    """
    present = there("hps_ranking", ranks, list_mask)
    low = -1.0 if legacy else 0.0
    score, rank = filled(policy_list_score, present, low), filled(ranks.to(policy_list_score.dtype), present, 9.0)
    # entry [i, j]: j against i, positive where the better of the two has the higher score
    agreement = (rank[:, :, None] - rank[:, None, :]) * (score[:, None, :] - score[:, :, None])
    hinge = (margin - agreement).clamp(min=0)
    counted = torch.ones_like(hinge, dtype=torch.bool).tril()
    if not legacy:
        counted = counted & present[:, :, None] & present[:, None, :] & (rank[:, :, None] != rank[:, None, :])
    return torch.where(counted, hinge, 0.0).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)


def expected_win(gap: Tensor, variance: Tensor, num_nodes: int = 32) -> Tensor:
    """Return (B,) the expectation of log sigmoid(z) for z normal of mean ``gap`` and some variance, by quadrature.

    Args:
        gap: (B,).
        variance: (B,).
        num_nodes: of Gauss and Hermite's.
    """
    places, shares = np.polynomial.hermite_e.hermegauss(num_nodes)
    nodes, weights = gap.new_tensor(places), gap.new_tensor(shares / shares.sum())
    return (logsigmoid(gap[:, None] + variance.sqrt()[:, None] * nodes) * weights).sum(dim=1)


@objective(
    "uncertain_bradley_terry",
    kind="pairwise",
    source="Ma et al., arXiv:2508.03789; MizzenAI/HPSv3 qwen2vl_trainer.py, uncertainty branch",
    evidence="official",
    aliases=("rm_hpsv3_uncertainty", "hps_v3"),
    published=("score",),
    signs={
        "policy_chosen_score": "-",
        "policy_rejected_score": "+",
        "policy_chosen_log_std": "+",
        "policy_rejected_log_std": "+",
    },
)
def uncertain_bradley_terry(
    *,
    policy_chosen_score: Tensor,
    policy_rejected_score: Tensor,
    policy_chosen_log_std: Tensor,
    policy_rejected_log_std: Tensor,
    preference: Tensor | None = None,
    num_nodes: PositiveInt = 32,
) -> Tensor:
    r"""HPS v3's loss of two uncertain scores: Bradley and Terry's, expected over both.

    .. math:: \ell = \mathbb{E}\,[-\log\sigma(z)], \qquad z \sim N(\mu_w - \mu_l,\; \sigma_w^2 + \sigma_l^2)

    Args:
        policy_chosen_score: (B,) mu, mean score of the chosen sample by the model in training.
        policy_rejected_score: (B,) the same of the rejected sample.
        policy_chosen_log_std: (B,) log sigma of the chosen sample's score; used between -10 and 10.
        policy_rejected_log_std: (B,) the same of the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        num_nodes: of the Gauss-Hermite quadrature; the official code averages 1000 random draws instead, whose noise is
            about 0.01.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Ma et al., HPSv3, ICCV 2025; soft labels and the quadrature are ours.
    Reduces to: `bradley_terry` as both deviations vanish.

    >>> import torch
    >>> one = {"policy_chosen_score": torch.tensor([1.2]), "policy_rejected_score": torch.tensor([0.7])}
    >>> sure = {"policy_chosen_log_std": torch.tensor([-9.0]), "policy_rejected_log_std": torch.tensor([-9.0])}
    >>> round(uncertain_bradley_terry(**one, **sure).item(), 6)
    0.474077
    """
    gap = policy_chosen_score - policy_rejected_score
    deviations = torch.stack([policy_chosen_log_std, policy_rejected_log_std]).clamp(-10, 10)
    variance = (2 * deviations).exp().sum(dim=0)
    won = -expected_win(gap, variance, num_nodes)
    if preference is None:
        return won
    return preference * won - (1 - preference) * expected_win(-gap, variance, num_nodes)


@objective(
    "bradley_terry_aspects",
    kind="pairwise",
    source="Liu et al., arXiv:2501.13918; KwaiVGI/VideoAlign trainer.py 'btt'",
    evidence="official",
    aliases=("videoalign",),
    published=("score",),
    signs={},
)
def bradley_terry_aspects(
    *,
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    preferences: Tensor,
    threshold: NonNegative = LN_5,
    margin: Number = 0.0,
    divide: Literal["judged", "all"] = "judged",
) -> Terms:
    r"""Train a reward model of several aspects, each with a judgement of its own on every pair.

    .. math:: \ell = \frac{1}{n} \sum_{a\ \text{judged}} -\log P_a, \qquad
              P_a(w \succ l) = \sigma(d_a - \eta), \quad
              P_a(\text{tie}) = (e^{2\eta} - 1)\,\sigma(d_a - \eta)\,\sigma(-d_a - \eta)

    Args:
        policy_chosen_scores: (B, A) r, score of the chosen sample in each aspect, by the model in training.
        policy_rejected_scores: (B, A) the same of the rejected sample; d is the difference.
        preferences: (B, A) P(chosen is better) in each aspect: 1, 0, 1/2 for a tie, and what lies between a tie with
            the rest of the probability; below 0 where nobody judged. No gradient.
        threshold: eta, half the width of ties; ln 5 in the official code. 0 knows no ties: a label of 1/2 is then an
            uncertain one.
        margin: taken from the difference of a decided aspect; 0.57 in the official ``constant_margin``.
        divide: n: how many aspects are ``"judged"``, and the weight of a pair with it, so that every judgement weighs
            alike; or ``"all"``, as the official code does, whose mean counts what nobody judged as 0.

    Returns:
        Terms of (B,) losses; with ``divide="judged"`` (B,) weights, the number of judged aspects.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., Improving Video Generation with Human Feedback (VideoAlign), 2025; how a soft label is split is
    ours.
    Reduces to: `bradley_terry_ties` for one aspect.

    >>> import torch
    >>> two = {"policy_chosen_scores": torch.tensor([[1.2, 0.1]]), "policy_rejected_scores": torch.tensor([[0.7, 0.0]])}
    >>> terms = bradley_terry_aspects(**two, preferences=torch.tensor([[1.0, -1.0]]), threshold=0.3)
    >>> round(terms.losses.item(), 6), terms.weights.item()
    (0.598139, 1.0)
    """
    difference, judged = policy_chosen_scores - policy_rejected_scores, preferences >= 0
    label = torch.where(judged, preferences, 0.5)
    win = -logsigmoid(difference - margin - threshold)
    loss = -logsigmoid(-difference - margin - threshold)
    if threshold > 0:
        won, lost = (2 * label - 1).clamp(min=0), (1 - 2 * label).clamp(min=0)
        each = won * win + lost * loss + (1 - won - lost) * tie_cost(difference, threshold)
    else:
        each = label * win + (1 - label) * loss
    total, count = torch.where(judged, each, 0.0).sum(dim=1), judged.sum(dim=1).to(difference.dtype)
    if divide == "all":
        return Terms(total / difference.shape[1])
    return Terms(total / count.clamp(min=1), weights=count)

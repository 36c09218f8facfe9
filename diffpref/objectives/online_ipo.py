"""IPO on samples of the policy: IPO-MD, and the two online forms on which extragradient optimisation steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lists import both, filled, pairs_of, there
from diffpref.objectives.pair_links import per_token

__all__ = ["ipo_md", "online_ipo_1", "online_ipo_1_list", "online_ipo_2_list"]

EGPO = "Zhou et al., arXiv:2503.08942; zhourunlong/EGPO simulations/loss_funcs.py"


@objective(
    "ipo_md",
    kind="pairwise",
    source=f"Calandriello et al., arXiv:2403.08635; {EGPO}",
    evidence="memory",
    aliases=("online_ipo", "online_ipo_2"),
    signs={},
)
def ipo_md(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    tau: Positive = scale(tokens=0.1, denoising=5000.0),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Regress the log-ratio difference of two samples onto how surely one beats the other.

    .. math:: \ell = \Big(h_w - h_l - \frac{P - \frac12}{\tau}\Big)^2

    IPO-MD draws both samples from the geometric mixture of policy and reference; online IPO (2) from the policy. Which,
    and the judge, is the loop's business.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        tau: larger asks for a smaller difference.
        length_normalize: divide each log-ratio by its length, as the code of EGPO does for text; the sum is the form of
            the paper. Denoisers' log-ratios are means already.

    Returns:
        (B,) non-negative losses, unreduced; ``(P - 1/2)^2 / tau^2`` where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Calandriello et al., Human Alignment of Large Language Models through Online Preference Optimisation, ICML
    2024, from memory; it agrees with online IPO 2 of Zhou et al., Extragradient Preference Optimization, COLM 2025.
    Reduces to: `ipo` for certain wins; with uncertain ones its gradient is that of `ipo` (the expectation over the
    label), and its value is smaller by ``P (1 - P) / tau^2``.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([1.0]), "rejected_log_ratio": torch.tensor([0.0])}
    >>> round(ipo_md(**one, preference=torch.tensor([0.8]), tau=0.1, length_normalize=False).item(), 4)
    4.0
    """
    chosen, rejected = per_token(
        "ipo_md", length_normalize, chosen_log_ratio, rejected_log_ratio, chosen_length, rejected_length
    )
    target = 0.5 / tau if preference is None else (preference - 0.5) / tau
    return (chosen - rejected - target).square()


@objective("online_ipo_1", kind="pairwise", source=EGPO, evidence="official", aliases=("egpo",), signs={})
def online_ipo_1(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_win_rate: Tensor,
    rejected_win_rate: Tensor,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Regress the log-ratio difference of two samples onto the difference of their win rates.

    .. math:: \ell = \Big(h_w - h_l - \frac{p_w - p_l}{\beta}\Big)^2

    Mirror descent when the win rates are against the current policy; Nash-MD's regression form when they are against
    its mixture with the reference; extragradient (EGPO) when they are against the policy after a trial step.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_win_rate: (B,) probability that the chosen sample beats the opponent's samples. No gradient.
        rejected_win_rate: (B,) the same for the rejected sample.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        beta: strength of the pull to the reference.
        length_normalize: divide each log-ratio by its length, as the code does for text.

    Returns:
        (B,) non-negative losses, unreduced. The least over all pairs is the Nash equilibrium of the regularised game.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Zhou et al., Extragradient Preference Optimization, COLM 2025; constants follow the official code.
    Reduces to: `ipo_md` where the two win rates differ by ``P - 1/2``.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([1.0]), "rejected_log_ratio": torch.tensor([0.0])}
    >>> rates = {"chosen_win_rate": torch.tensor([0.9]), "rejected_win_rate": torch.tensor([0.35])}
    >>> round(online_ipo_1(**one, **rates, beta=0.1, length_normalize=False).item(), 4)
    20.25
    """
    chosen, rejected = per_token(
        "online_ipo_1", length_normalize, chosen_log_ratio, rejected_log_ratio, chosen_length, rejected_length
    )
    return (chosen - rejected - (chosen_win_rate - rejected_win_rate) / beta).square()


@objective("online_ipo_1_list", kind="listwise", source=EGPO, evidence="official", signs={})
def online_ipo_1_list(
    *,
    list_log_ratio: Tensor,
    list_win_rate: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Regress every log-ratio difference of a list onto the difference of the win rates.

    .. math:: \ell = \frac{1}{K^2} \sum_{i,j} \Big(\Delta_i - \Delta_j - \frac{p_i - p_j}{\beta}\Big)^2

    Exact when the list holds every response and the win rates are ``P @ pi``.

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        list_win_rate: (B, K) probability that each candidate beats the opponent's samples. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: strength of the pull to the reference.

    Returns:
        (B,) non-negative losses, unreduced: means over all K^2 pairs, each candidate with itself among them.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Zhou et al., Extragradient Preference Optimization, COLM 2025, the exact form on tables.
    Reduces to: half of `online_ipo_1` for K = 2.

    >>> import torch
    >>> ratios, rates = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.35]])
    >>> round(online_ipo_1_list(list_log_ratio=ratios, list_win_rate=rates, beta=0.1).item(), 4)
    10.125
    """
    present = there("online_ipo_1_list", list_win_rate, list_mask)
    residual = filled(list_log_ratio - list_win_rate / beta, present)
    counts = both(present)
    return filled(pairs_of(residual).square(), counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))


@objective(
    "online_ipo_2_list",
    kind="listwise",
    source=EGPO,
    evidence="official",
    signs={},
    stops=("policy_list_logps",),
)
def online_ipo_2_list(
    *,
    list_log_ratio: Tensor,
    policy_list_logps: Tensor,
    list_preference_matrix: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    pairs: Literal["alike", "by_policy"] = "alike",
) -> Tensor:
    r"""Regress every log-ratio difference of a list onto how surely one candidate beats the other.

    .. math:: \ell = \sum_{i,j} w_i w_j \Big(\Delta_i - \Delta_j - \frac{P_{ij} - \frac12}{\beta}\Big)^2

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each candidate.
        policy_list_logps: (B, K) log-likelihood of each candidate under the policy, for its weight: no gradient.
        list_preference_matrix: (B, K, K) P(i beats j), 1/2 on the diagonal. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        beta: strength of the pull to the reference.
        pairs: ``"alike"`` for samples of the policy: w = 1 / K; ``"by_policy"`` for a list of all responses: w is the
            policy's probability, normalised over the list.

    Returns:
        (B,) non-negative losses, unreduced.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Zhou et al., Extragradient Preference Optimization, COLM 2025, the exact form on tables.
    Reduces to: half of `ipo_md` for K = 2.

    >>> import torch
    >>> lists = {"list_log_ratio": torch.tensor([[1.0, 0.0]]), "policy_list_logps": torch.tensor([[-1.0, -1.0]])}
    >>> matrix = torch.tensor([[[0.5, 0.8], [0.2, 0.5]]])
    >>> round(online_ipo_2_list(**lists, list_preference_matrix=matrix, beta=0.1).item(), 4)
    2.0
    """
    present = there("online_ipo_2_list", list_preference_matrix, list_mask)
    weight = present.to(list_preference_matrix.dtype) / present.sum(dim=1, keepdim=True)
    if pairs == "by_policy":
        weight = torch.softmax(filled(policy_list_logps.detach(), present, float("-inf")), dim=1)
    wanted = (list_preference_matrix - 0.5) / beta
    residual = filled(pairs_of(filled(list_log_ratio, present)) - wanted, both(present))
    return (weight.unsqueeze(2) * weight.unsqueeze(1) * residual.square()).sum(dim=(1, 2))

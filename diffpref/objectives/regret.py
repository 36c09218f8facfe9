"""Contrastive Preference Learning: likelihood as regret, compared with a bias towards the data."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from diffpref.core.annotations import NonNegative, Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization, imitation
from diffpref.objectives.lists import both, filled, pairs_of, there
from diffpref.objectives.pair_links import expected

__all__ = ["cpl", "cpl_discounted", "cpl_kl", "cpl_kl_rank", "cpl_rank"]

Bias = Annotated[Number, Field(gt=0, le=1)]


@objective(
    "cpl",
    kind="pairwise",
    source="Hejna et al., Contrastive Preference Learning: Learning from Human Feedback without RL, arXiv:2310.13639,"
    " eq. 5",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    aliases=("contrastive_preference_learning",),
)
def cpl(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    alpha: Positive = scale(tokens=0.1, denoising=100.0),
    bias: Bias = 0.5,
    nll_weight: NonNegative = 0.0,
    nll: Normalization = scale(tokens="token_mean_seq", denoising="seq_sum"),
) -> Tensor:
    r"""Compare summed log-likelihoods of two segments of actions, with the worse one's counted less.

    .. math:: \ell = \log\big(1 + e^{-(A_w - \lambda A_l)}\big), \qquad A = \alpha \sum_t \log\pi(a_t \mid s_t)

    A bias below 1 makes unlikely segments costly on either side. With soft labels (1/2 for a tie) it is the expectation
    over the label.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the preferred segment under the policy: a sum over actions, tokens,
            or steps of denoising. Of a deterministic head minus the squared distance of its action.
        policy_rejected_logps: (B,) the same for the other segment.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) actions of the preferred segment; needed for ``nll`` by means. No gradient.
        alpha: temperature of the advantage. The default for denoisers is ours.
        bias: lambda above; 0.5 on states, 0.75 on images.
        nll_weight: factor of the imitation of the preferred segment.
        nll: what that imitation is a mean over.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Hejna et al., Contrastive Preference Learning, ICLR 2024, eq. 5; code: jhejna/cpl ``cpl.py``. Its discount
    is 1.
    Reduces to: `cpo` without imitation at bias=1.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-2.6]), "policy_rejected_logps": torch.tensor([-3.5])}
    >>> round(cpl(**logps).item(), 5)
    0.73655
    """
    compared = expected(
        lambda better, worse: softplus(alpha * (bias * worse - better)),
        preference,
        policy_chosen_logps,
        policy_rejected_logps,
    )
    if nll_weight == 0:
        return compared
    return compared + nll_weight * imitation("cpl", nll, policy_chosen_logps, chosen_length, preference)


@objective(
    "cpl_kl",
    kind="pairwise",
    source="Hejna et al., Contrastive Preference Learning: Learning from Human Feedback without RL, arXiv:2310.13639",
    evidence="official",
)
def cpl_kl(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    alpha: Positive = scale(tokens=0.2, denoising=10000.0),
    bias: Bias = 0.75,
) -> Tensor:
    r"""Do as `cpl` relative to a reference, the policy after behaviour cloning.

    .. math:: \ell = \log\big(1 + e^{-\alpha (\Delta_w - \lambda \Delta_l)}\big)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the preferred segment.
        rejected_log_ratio: (B,) the same for the other one.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        alpha: temperature of the advantage, in the unit of `dpo`'s beta.
        bias: lambda above.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Hejna et al., Contrastive Preference Learning, ICLR 2024; code: jhejna/cpl ``cpl_kl.py``.
    Reduces to: `dpo` at bias=1; `flex_dpo`, whose betas are alpha and alpha times bias.

    >>> import torch
    >>> loss = cpl_kl(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), alpha=0.1, bias=1)
    >>> round(loss.item(), 6)
    0.630258
    """
    return expected(
        lambda better, worse: softplus(alpha * (bias * worse - better)),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )


@objective(
    "cpl_rank",
    kind="listwise",
    source="Hejna et al., Contrastive Preference Learning: Learning from Human Feedback without RL, arXiv:2310.13639",
    evidence="official",
    signs={},
    aliases=("cpl_dense", "cpl_list"),
)
def cpl_rank(
    *,
    policy_list_logps: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    alpha: Positive = scale(tokens=0.1, denoising=100.0),
    bias: Bias = 0.5,
) -> Tensor:
    r"""Compare every two of a list of segments as `cpl` does.

    .. math:: \ell = \frac{1}{|\{i, j : r_i < r_j\}|} \sum_{r_i < r_j} \log\big(1 + e^{-(A_j - \lambda A_i)}\big),
              \qquad A = \alpha \log\pi

    Args:
        policy_list_logps: (B, K) log-likelihoods of segments under the policy.
        list_scores: (B, K) their scores r; two of equal score are not compared. No gradient.
        list_mask: (B, K) 1 where there is a segment; all where the batch has no such column.
        alpha: temperature of the advantage. The default for denoisers is ours.
        bias: lambda above.

    Returns:
        (B,) losses, unreduced; 0 where no two scores differ.

    Raises:
        ShapeError: the tensors differ in shape, or a list has fewer than two segments.

    Source: Hejna et al., Contrastive Preference Learning, ICLR 2024; code: jhejna/cpl, modes ``rank`` and ``score``,
    which order equal scores by their place, and leave out pairs whose loss underflows.
    Reduces to: `cpl` with two segments.

    >>> import torch
    >>> logps, scores = torch.tensor([[0.3, -0.2, 1.0]]), torch.tensor([[2.0, 0.5, 1.0]])
    >>> round(cpl_rank(policy_list_logps=logps, list_scores=scores, alpha=1.0, bias=1.0).item(), 6)
    0.613515
    """
    return _ranked("cpl_rank", alpha * policy_list_logps, list_scores, list_mask, bias)


def _ranked(name: str, advantage: Tensor, scores: Tensor, mask: Tensor | None, bias: float) -> Tensor:
    """Return (B,) means over the pairs of unequal scores; 0 where there is none."""
    present = there(name, scores, mask)
    advantage, scores = filled(advantage, present), filled(scores, present)
    counts = (pairs_of(scores) > 0) & both(present)
    losses = softplus(bias * advantage.unsqueeze(1) - advantage.unsqueeze(2))
    return filled(losses, counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2)).clamp(min=1)


@objective(
    "cpl_kl_rank",
    kind="listwise",
    source="Hejna et al., Contrastive Preference Learning: Learning from Human Feedback without RL, arXiv:2310.13639",
    evidence="official",
    signs={},
)
def cpl_kl_rank(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    alpha: Positive = scale(tokens=0.2, denoising=10000.0),
    bias: Bias = 0.75,
) -> Tensor:
    r"""Compare every two of a list of segments as `cpl_kl` does.

    .. math:: \ell = \frac{1}{|\{i, j : r_i < r_j\}|}
              \sum_{r_i < r_j} \log\big(1 + e^{-\alpha (\Delta_j - \lambda \Delta_i)}\big)

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each segment.
        list_scores: (B, K) their scores r; two of equal score are not compared. No gradient.
        list_mask: (B, K) 1 where there is a segment; all where the batch has no such column.
        alpha: temperature of the advantage, in the unit of `dpo`'s beta.
        bias: lambda above.

    Returns:
        (B,) losses, unreduced; 0 where no two scores differ.

    Raises:
        ShapeError: the tensors differ in shape, or a list has fewer than two segments.

    Source: Hejna et al., Contrastive Preference Learning, ICLR 2024; code: jhejna/cpl, modes ``rank`` and ``score``.
    Reduces to: `cpl_kl` with two segments; `lipo_pairwise` at bias=1.

    >>> import torch
    >>> ratios, scores = torch.tensor([[0.5, -0.8]]), torch.tensor([[2.0, 1.0]])
    >>> round(cpl_kl_rank(list_log_ratio=ratios, list_scores=scores, alpha=0.1, bias=1.0).item(), 6)
    0.630258
    """
    return _ranked("cpl_kl_rank", alpha * list_log_ratio, list_scores, list_mask, bias)


@objective(
    "cpl_discounted",
    kind="token",
    source="Hejna et al., Contrastive Preference Learning: Learning from Human Feedback without RL, arXiv:2310.13639,"
    " eq. 5",
    evidence="memory",
    signs={"policy_chosen_token_logps": "-", "policy_rejected_token_logps": "+"},
)
def cpl_discounted(
    *,
    policy_chosen_token_logps: Tensor,
    policy_rejected_token_logps: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    preference: Tensor | None = None,
    alpha: Positive = scale(tokens=0.1, denoising=100.0),
    bias: Bias = 0.5,
    discount: Bias = 1.0,
) -> Tensor:
    r"""Compare two segments as `cpl` does, the later steps counting for less.

    .. math:: \ell = \log\big(1 + e^{-(A_w - \lambda A_l)}\big), \qquad
              A = \alpha \sum_t \gamma^t \log\pi(a_t \mid s_t)

    Args:
        policy_chosen_token_logps: (B, T) log-likelihood of each step of the preferred segment: a token, an action, a
            timestep draw.
        policy_rejected_token_logps: (B, T') the same for the other segment.
        chosen_token_mask: (B, T) 1 where a step is there.
        rejected_token_mask: (B, T') the same for the other segment.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        alpha: temperature of the advantage. The default for denoisers is ours.
        bias: lambda above.
        discount: gamma, from the first step on.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors of a side differ in shape.

    Source: Hejna et al., Contrastive Preference Learning, ICLR 2024, eq. 5; the code has no discount.
    Reduces to: `cpl` at discount=1.

    >>> import torch
    >>> one = {"policy_chosen_token_logps": torch.tensor([[-0.8, -1.8]]), "chosen_token_mask": torch.ones(1, 2)}
    >>> other = {"policy_rejected_token_logps": torch.tensor([[-3.5]]), "rejected_token_mask": torch.ones(1, 1)}
    >>> round(cpl_discounted(**one, **other).item(), 6)
    0.73655
    """
    chosen = _discounted(policy_chosen_token_logps, chosen_token_mask, discount)
    rejected = _discounted(policy_rejected_token_logps, rejected_token_mask, discount)
    return expected(lambda better, worse: softplus(alpha * (bias * worse - better)), preference, chosen, rejected)


def _discounted(values: Tensor, mask: Tensor, discount: float) -> Tensor:
    time = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype)
    return (discount**time * filled(values, mask > 0)).sum(dim=1)

"""Losses that compare a long response by no more tokens than the short one has: LD-DPO and SamPO."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.annotations import Positive, Probability, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["ld_dpo", "sampo", "sampo_independent"]


def _kept(values: Tensor, mask: Tensor, number: Tensor, tail: float) -> Tensor:
    """Return the sum of the first (B,) ``number`` tokens of each row plus ``tail`` times the sum of the others."""
    values = torch.where(mask > 0, values, 0.0)
    return torch.where(mask.cumsum(dim=1) <= number.unsqueeze(1), values, tail * values).sum(dim=1)


def _drawn(values: Tensor, mask: Tensor, draw: Tensor, number: Tensor) -> Tensor:
    """Return the sum of those (B,) ``number`` tokens of each row whose draws are the smallest."""
    order = torch.where(mask > 0, draw, torch.inf).argsort(dim=1, stable=True)
    return _kept(values.gather(1, order), mask.gather(1, order), number, 0.0)


@objective(
    "ld_dpo",
    kind="token",
    source="Liu et al., Length Desensitization in Direct Preference Optimization, arXiv:2409.06411",
    evidence="official",
    aliases=("length_desensitized_dpo",),
    signs={"chosen_token_log_ratio": "-", "rejected_token_log_ratio": "+"},
)
def ld_dpo(
    *,
    chosen_token_log_ratio: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_log_ratio: Tensor,
    rejected_token_mask: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    tail_weight: Probability = 0.5,
) -> Tensor:
    r"""DPO in which the tokens that only the longer response has count less.

    .. math:: \ell = -\log\sigma\big(\beta\,(\tilde\Delta_w - \tilde\Delta_l)\big), \qquad
              \tilde\Delta = \sum_{t \le m} \Delta_t + \alpha \sum_{t > m} \Delta_t, \quad m = \min(n_w, n_l)

    Args:
        chosen_token_log_ratio: (B, T) policy minus reference log-probability of each token of the chosen response.
        chosen_token_mask: (B, T) 1 where there is a token.
        rejected_token_log_ratio: (B, T') the same for the rejected response.
        rejected_token_mask: (B, T') 1 where there is a token.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        tail_weight: alpha above, in [0, 1]; 0 ignores the longer response's tail.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: a tensor and its mask differ in shape.

    Source: Liu et al., Length Desensitization in Direct Preference Optimization, 2024; code: TRL ``ld_alpha``.
    Reduces to: `dpo` at tail_weight=1, and for equal lengths.

    >>> import torch
    >>> chosen, rejected = torch.tensor([[1.0, 1.0, 4.0]]), torch.tensor([[0.5, 0.5]])
    >>> masks = {"chosen_token_mask": torch.ones(1, 3), "rejected_token_mask": torch.ones(1, 2)}
    >>> loss = ld_dpo(chosen_token_log_ratio=chosen, rejected_token_log_ratio=rejected, **masks)
    >>> round(loss.item(), 6)
    0.554355
    """
    shared = torch.minimum(chosen_token_mask.sum(dim=1), rejected_token_mask.sum(dim=1))
    chosen = _kept(chosen_token_log_ratio, chosen_token_mask, shared, tail_weight)
    rejected = _kept(rejected_token_log_ratio, rejected_token_mask, shared, tail_weight)
    return logistic(beta * (chosen - rejected), preference)


@objective(
    "sampo",
    kind="token",
    source="Lu et al., Eliminating Biased Length Reliance of DPO via Down-Sampled KL Divergence, arXiv:2406.10957",
    evidence="official",
    signs={"chosen_token_log_ratio": "-", "rejected_token_log_ratio": "+"},
)
def sampo(
    *,
    chosen_token_log_ratio: Tensor,
    chosen_token_mask: Tensor,
    chosen_token_draw: Tensor,
    rejected_token_log_ratio: Tensor,
    rejected_token_mask: Tensor,
    rejected_token_draw: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""DPO that hears as many tokens of the longer response, drawn at random, as the shorter one has.

    .. math:: \ell = -\log\sigma\Big(\beta\,\big(\sum_{t \in S_w} \Delta_t - \sum_{t \in S_l} \Delta_t\big)\Big), \qquad
              |S_w| = |S_l| = \min(n_w, n_l)

    Args:
        chosen_token_log_ratio: (B, T) policy minus reference log-probability of each token of the chosen response.
        chosen_token_mask: (B, T) 1 where there is a token.
        chosen_token_draw: (B, T) random numbers; the tokens with the smallest are those that are heard.
        rejected_token_log_ratio: (B, T') the same for the rejected response.
        rejected_token_mask: (B, T') 1 where there is a token.
        rejected_token_draw: (B, T') random numbers of the rejected response.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: a tensor and its mask or draws differ in shape.

    Source: Lu et al., SamPO, EMNLP 2024; code: LuJunru/SamPO ``get_batch_logps(len_norm=True)``, which draws anew for
    the reference: `sampo_independent`. Here policy and reference are heard at the same tokens.
    Reduces to: `dpo` for equal lengths.

    >>> import torch
    >>> chosen, rejected = torch.tensor([[1.0, 1.0, 4.0]]), torch.tensor([[0.5, 0.5]])
    >>> masks = {"chosen_token_mask": torch.ones(1, 3), "rejected_token_mask": torch.ones(1, 2)}
    >>> draws = {"chosen_token_draw": torch.tensor([[0.1, 0.9, 0.2]]), "rejected_token_draw": torch.zeros(1, 2)}
    >>> loss = sampo(chosen_token_log_ratio=chosen, rejected_token_log_ratio=rejected, **masks, **draws)
    >>> round(loss.item(), 6)
    0.513015
    """
    shared = torch.minimum(chosen_token_mask.sum(dim=1), rejected_token_mask.sum(dim=1))
    chosen = _drawn(chosen_token_log_ratio, chosen_token_mask, chosen_token_draw, shared)
    rejected = _drawn(rejected_token_log_ratio, rejected_token_mask, rejected_token_draw, shared)
    return logistic(beta * (chosen - rejected), preference)


@objective(
    "sampo_independent",
    kind="token",
    source="Lu et al., Eliminating Biased Length Reliance of DPO via Down-Sampled KL Divergence, arXiv:2406.10957",
    evidence="official",
    signs={"policy_chosen_token_logps": "-", "policy_rejected_token_logps": "+"},
)
def sampo_independent(
    *,
    policy_chosen_token_logps: Tensor,
    reference_chosen_token_logps: Tensor,
    chosen_token_mask: Tensor,
    chosen_token_draw: Tensor,
    chosen_token_redraw: Tensor,
    policy_rejected_token_logps: Tensor,
    reference_rejected_token_logps: Tensor,
    rejected_token_mask: Tensor,
    rejected_token_draw: Tensor,
    rejected_token_redraw: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""SamPO as its code computes it: policy and reference are heard at tokens drawn independently.

    .. math:: \ell = -\log\sigma\Big(\beta\,\big(\log\pi(S_w) - \log\pi_\text{ref}(S'_w)
              - \log\pi(S_l) + \log\pi_\text{ref}(S'_l)\big)\Big)

    Args:
        policy_chosen_token_logps: (B, T) log-probability of each token of the chosen response under the policy.
        reference_chosen_token_logps: (B, T) the same under the reference.
        chosen_token_mask: (B, T) 1 where there is a token.
        chosen_token_draw: (B, T) random numbers; the policy is heard at the tokens with the smallest.
        chosen_token_redraw: (B, T) random numbers of the reference.
        policy_rejected_token_logps: (B, T') the same for the rejected response.
        reference_rejected_token_logps: (B, T') the same under the reference.
        rejected_token_mask: (B, T') 1 where there is a token.
        rejected_token_draw: (B, T') random numbers of the policy.
        rejected_token_redraw: (B, T') random numbers of the reference.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced. Where the lengths differ they are noisy even if policy and reference agree.

    Raises:
        ShapeError: a tensor and its mask or draws differ in shape.

    Source: Lu et al., SamPO, EMNLP 2024; code: LuJunru/SamPO ``get_batch_logps(len_norm=True)``.
    Reduces to: `sampo` where both draws are the same.

    >>> import torch
    >>> chosen, rejected = torch.tensor([[-1.0, -1.0, -4.0]]), torch.tensor([[-0.5, -0.5]])
    >>> chosen_side = {"policy_chosen_token_logps": chosen, "reference_chosen_token_logps": chosen}
    >>> rejected_side = {"policy_rejected_token_logps": rejected, "reference_rejected_token_logps": rejected}
    >>> masks = {"chosen_token_mask": torch.ones(1, 3), "rejected_token_mask": torch.ones(1, 2)}
    >>> draws = {"chosen_token_draw": torch.tensor([[0.1, 0.9, 0.2]]), "rejected_token_draw": torch.zeros(1, 2)}
    >>> again = {"chosen_token_redraw": torch.tensor([[0.1, 0.2, 0.9]]), "rejected_token_redraw": torch.zeros(1, 2)}
    >>> round(sampo_independent(**chosen_side, **rejected_side, **masks, **draws, **again).item(), 6)
    0.854355
    """
    shared = torch.minimum(chosen_token_mask.sum(dim=1), rejected_token_mask.sum(dim=1))
    chosen = _drawn(policy_chosen_token_logps, chosen_token_mask, chosen_token_draw, shared)
    rejected = _drawn(policy_rejected_token_logps, rejected_token_mask, rejected_token_draw, shared)
    chosen_anchor = _drawn(reference_chosen_token_logps, chosen_token_mask, chosen_token_redraw, shared)
    rejected_anchor = _drawn(reference_rejected_token_logps, rejected_token_mask, rejected_token_redraw, shared)
    return logistic(beta * (chosen - chosen_anchor - rejected + rejected_anchor), preference)

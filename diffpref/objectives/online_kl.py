"""Offline preferences with a KL divergence estimated online (HyPO), its estimator for lists, and the other "HyPO"."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["hypo", "hypo_clip", "online_kl"]


@objective(
    "hypo",
    kind="pairwise",
    source="Song et al., The Importance of Online Data: Understanding Preference Fine-tuning via Coverage,"
    " arXiv:2406.01462",
    evidence="secondary",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+"},
    stops=("policy_online_logps",),
    aliases=("hybrid_preference_optimization",),
)
def hypo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_online_logps: Tensor,
    reference_online_logps: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=2500.0),
    kl_weight: NonNegative = scale(tokens=1e-4, denoising=0.25),
) -> Terms:
    r"""Compare the pair as DPO does, and keep near the reference where the policy itself goes.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) + \lambda \log\pi(y)\,\bar\Delta_y,
              \qquad y \sim \pi_\theta

    A bar stops the gradient. The value of the last term means nothing; its gradient is that of
    :math:`\lambda\,\mathrm{KL}(\pi_\theta \| \pi_\text{ref})`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        policy_online_logps: (B,) log-likelihood under the policy of a sample that it has just drawn.
        reference_online_logps: (B,) the same under the reference.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        kl_weight: lambda above.

    Returns:
        (B,) losses, unreduced, and the metric ``online_kl``, whose mean estimates the divergence.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Song et al., The Importance of Online Data, NeurIPS 2024, from notes; the estimator is from memory. With
    several samples a prompt, compose `dpo` with `online_kl` for the leave-one-out baseline.
    Reduces to: `dpo` at kl_weight=0.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> online = {"policy_online_logps": torch.tensor([-15.0]), "reference_online_logps": torch.tensor([-14.0])}
    >>> round(hypo(**ratios, **online, kl_weight=0.01).losses.item(), 6)
    0.811175
    """
    distance = (policy_online_logps - reference_online_logps).detach()
    compared = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    return Terms(compared + kl_weight * policy_online_logps * distance, metrics={"online_kl": distance})


@objective(
    "online_kl",
    kind="listwise",
    source="Song et al., The Importance of Online Data: Understanding Preference Fine-tuning via Coverage,"
    " arXiv:2406.01462; Ahmadian et al., Back to Basics, arXiv:2402.14740, for the baseline",
    evidence="secondary",
    signs={},
    stops=("policy_list_logps",),
)
def online_kl(
    *,
    policy_list_logps: Tensor,
    reference_list_logps: Tensor,
    baseline: Literal["none", "leave_one_out"] = "leave_one_out",
) -> Terms:
    r"""Have the gradient of KL(policy || reference), estimated from samples of the policy: a regulariser.

    .. math:: \ell = \frac{1}{K} \sum_k \log\pi(y_k)\,(\bar\Delta_k - b_k), \qquad
              b_k = \frac{1}{K - 1} \sum_{j \ne k} \bar\Delta_j

    Args:
        policy_list_logps: (B, K) log-likelihood under the policy of samples that it has just drawn.
        reference_list_logps: (B, K) the same under the reference.
        baseline: b above; ``none`` is 0.

    Returns:
        (B,) losses, whose value means nothing, and the metric ``online_kl``, whose mean estimates the divergence.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: a baseline of one sample.

    Source: Song et al., NeurIPS 2024, with RLOO, from notes.
    Reduces to: the online term of `hypo` with one sample and no baseline.

    >>> import torch
    >>> policy, reference = torch.tensor([[-2.0, -1.0]]), torch.tensor([[-1.0, -1.0]])
    >>> online_kl(policy_list_logps=policy, reference_list_logps=reference).losses.item()
    0.5
    """
    distance = (policy_list_logps - reference_list_logps).detach()
    count = distance.shape[1]
    centred = distance
    if baseline == "leave_one_out":
        if count < 2:
            raise ConfigError("online_kl: a leave-one-out baseline needs two samples or more; set baseline=none")
        centred = (distance - distance.mean(dim=1, keepdim=True)) * count / (count - 1)
    return Terms((policy_list_logps * centred).mean(dim=1), metrics={"online_kl": distance.mean(dim=1)})


@objective(
    "hypo_clip",
    kind="pairwise",
    source="HyPO (hybrid reference), 2025, as described by others",
    evidence="secondary",
)
def hypo_clip(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Compare as DPO does, without the reference where that prefers the wrong sample.

    .. math:: \ell = -\log\sigma\big(\beta\,(\log\pi_w - \log\pi_l - \max(0, \log\rho_w - \log\rho_l))\big)

    where :math:`\rho` is the reference. Not the HyPO with an online KL, which is `hypo`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        reference_chosen_logps: (B,) log-likelihood of the chosen sample under the reference.
        reference_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: HyPO (hybrid reference), 2025, from a summary.
    Reduces to: `dpo` where the reference prefers the chosen sample.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> logps = {"reference_chosen_logps": torch.tensor([-13.0]), "reference_rejected_logps": torch.tensor([-12.0])}
    >>> round(hypo_clip(**ratios, **logps).item(), 6)
    0.67826
    """
    pessimistic = (reference_chosen_logps - reference_rejected_logps).clamp(max=0.0)
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio + pessimistic), preference)

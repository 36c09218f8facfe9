"""Terms to add to any objective: hold the policy near the reference, or the chosen sample above it.

Each looks at the chosen sample; ``groups: {chosen: rejected}`` lets a recipe put it on another.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

from diffpref.objectives.base import objective

__all__ = ["chosen_floor", "kl_penalty", "log_ratio_penalty"]

LOWEST = -60.0
"""Below, an exponential goes on along its tangent."""


@objective(
    "kl_penalty",
    kind="supervised",
    source="ours; Zeng et al., Token-level Direct Preference Optimization, arXiv:2404.11999, for the divergence",
    evidence="ours",
    signs={"chosen_kl": "+"},
)
def kl_penalty(*, chosen_kl: Tensor) -> Tensor:
    r"""Keep what the policy would say next near what the reference would, all along a sample.

    .. math:: \ell = \sum_t \mathrm{KL}\big(\pi_\text{ref}(\cdot \mid y_{<t}) \,\|\, \pi_\theta(\cdot \mid y_{<t})\big)

    Args:
        chosen_kl: (B,) divergence of the policy from the reference, summed over the steps of the chosen sample.

    Returns:
        (B,) losses, unreduced.

    Source: ours; the divergence is that of TDPO.
    Reduces to: distillation of the reference on the chosen samples.

    >>> import torch
    >>> kl_penalty(chosen_kl=torch.tensor([0.25])).item()
    0.25
    """
    return chosen_kl


@objective(
    "log_ratio_penalty",
    kind="supervised",
    source="ours; Schulman, Approximating KL Divergence, 2020, for the estimators",
    evidence="ours",
    signs={},
)
def log_ratio_penalty(*, chosen_log_ratio: Tensor, estimator: Literal["square", "unbiased"] = "square") -> Tensor:
    r"""Keep the likelihood of a sample near the reference's, by an estimate of the KL divergence from that one sample.

    .. math:: \ell = \tfrac{1}{2} \Delta_w^2 \quad\text{or}\quad e^{-\Delta_w} - 1 + \Delta_w

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        estimator: ``"square"`` (k2), or ``"unbiased"`` (k3), which is unbiased for samples of the policy itself and
            grows exponentially below 0, where it is continued by its tangent from -60 on.

    Returns:
        (B,) non-negative losses, unreduced; 0 where policy and reference agree.

    Source: ours; the estimators are Schulman's.
    Reduces to: least squares on the log-ratio.

    >>> import torch
    >>> log_ratio_penalty(chosen_log_ratio=torch.tensor([-2.0])).item()
    2.0
    """
    if estimator == "square":
        return chosen_log_ratio.square() / 2
    below = relu(LOWEST - chosen_log_ratio)
    return torch.expm1(-chosen_log_ratio.clamp(min=LOWEST)) + chosen_log_ratio + math.exp(-LOWEST) * below


@objective(
    "chosen_floor",
    kind="supervised",
    source="ours, after Pal et al., Smaug, arXiv:2402.13228",
    evidence="ours",
)
def chosen_floor(*, chosen_log_ratio: Tensor) -> Tensor:
    r"""Punish a chosen sample for being less likely than under the reference: DPO-Positive's penalty as a term.

    .. math:: \ell = \max(0, -\Delta_w)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.

    Returns:
        (B,) non-negative losses, unreduced; without gradient where the sample is at least as likely.

    Source: ours; in DPO-Positive the same penalty stands inside the logit, as the option ``dpop`` of any term does.
    Reduces to: `nll` up to a constant, below the reference.

    >>> import torch
    >>> chosen_floor(chosen_log_ratio=torch.tensor([-2.0])).item()
    2.0
    """
    return relu(-chosen_log_ratio)

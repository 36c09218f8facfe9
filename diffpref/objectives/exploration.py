"""Optimism and pessimism: DPO with a term on responses that nobody compared (SELM, XPO, VPO).

Making a calibration response less likely sends the policy to explore elsewhere; making it more likely keeps it home.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["selm", "vpo", "xpo"]


@objective(
    "selm",
    kind="pairwise",
    source="Zhang et al., Self-Exploring Language Models, arXiv:2405.19332",
    evidence="official",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "calibration_log_ratio": "+"},
    aliases=("self_exploring",),
)
def selm(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    calibration_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    alpha: NonNegative = 0.001,
) -> Tensor:
    r"""Compare the pair as DPO does, and move away from what the previous policy would say.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) + \alpha \beta\, \Delta_y

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the best ranked response.
        rejected_log_ratio: (B,) the same for the worst ranked one.
        calibration_log_ratio: (B,) the same for y, a response of the previous policy, which is the reference.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        alpha: strength of the exploration; 1e-4 to 1e-3.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhang et al., SELM, TMLR 2025; code: shenao-zhang/SELM ``optimistic_dpo_loss``.
    Reduces to: `dpo` at alpha=0; `vpo` with sign=1, whose calibration responses are then those of the previous policy.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(selm(**ratios, calibration_log_ratio=torch.tensor([-1.0])).item(), 6)
    0.686658
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference) + alpha * beta * calibration_log_ratio


@objective(
    "xpo",
    kind="pairwise",
    source="Xie et al., Exploratory Preference Optimization, arXiv:2405.21046",
    evidence="official",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "policy_calibration_logps": "+"},
    aliases=("exploratory_preference_optimization",),
)
def xpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_calibration_logps: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = scale(tokens=1e-5, denoising=0.5),
) -> Tensor:
    r"""Compare a sample of the policy with one of the reference, and move away from the reference's.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) + \alpha \log\pi_\theta(y_\text{ref})

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the better of the two samples.
        rejected_log_ratio: (B,) the same for the worse one.
        policy_calibration_logps: (B,) log-likelihood under the policy of the reference's sample, which is one of these
            two.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        alpha: strength of the exploration; 1e-5 is TRL's.

    Returns:
        (B,) losses, unreduced; they may be negative.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Xie et al., Exploratory Preference Optimization, 2024; code: TRL ``XPOTrainer``.
    Reduces to: `dpo` at alpha=0.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(xpo(**ratios, policy_calibration_logps=torch.tensor([-15.0]), alpha=0.01).item(), 6)
    0.480258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference) + alpha * policy_calibration_logps


@objective(
    "vpo",
    kind="pairwise",
    source="Cen et al., Value-Incentivized Preference Optimization, arXiv:2405.19320",
    evidence="paper",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+"},
    aliases=("value_incentivized",),
)
def vpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    calibration_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = 0.01,
    attitude: Literal["optimistic", "pessimistic"] = "optimistic",
) -> Tensor:
    r"""Compare the pair as DPO does, with a reward that prefers a high (online) or a low (offline) optimal value.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) \pm \alpha \beta\, \Delta_\text{cal}

    With rewards calibrated to mean 0 on the calibration responses the optimal value is :math:`-\beta\,E[\Delta]`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        calibration_log_ratio: (B,) the same for a response of the calibration policy: of the data set offline, of the
            reference or behaviour policy online.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        alpha: strength; 0.01 to 0.1.
        attitude: ``optimistic`` adds the term, for online exploration; ``pessimistic`` subtracts it, against
            over-optimisation offline.

    Returns:
        (B,) losses, unreduced; they may be negative.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Cen et al., Value-Incentivized Preference Optimization, ICLR 2025; the signs are derived from its abstract.
    Reduces to: `dpo` at alpha=0; `selm`; pessimistic with chosen responses: `rpo` with ``nll="paper"``, but a constant.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(vpo(**ratios, calibration_log_ratio=torch.tensor([-1.0])).item(), 6)
    0.629258
    """
    sign = 1.0 if attitude == "optimistic" else -1.0
    term = sign * alpha * beta * calibration_log_ratio
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference) + term

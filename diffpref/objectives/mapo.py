"""MaPO: a bounded, reference-free gap between two denoising errors, next to the denoising loss of the better one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, PositiveInt
from diffpref.objectives.base import objective

__all__ = ["mapo"]


@objective(
    "mapo",
    kind="pairwise",
    source="Hong et al., Margin-aware Preference Optimization for Aligning Diffusion Models without Reference,"
    " arXiv:2406.06424",
    evidence="official",
    published=("denoising",),
)
def mapo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    beta: NonNegative = 0.1,
    snr_value: Positive = 0.5,
    num_train_timesteps: PositiveInt = 1000,
) -> Tensor:
    r"""Learn the chosen sample, and widen a bounded gap to the rejected one, without a reference.

    .. math:: \ell = e_w - \beta \log\sigma\big(T\,(g(e_w) - g(e_l))\big), \qquad
              g(e) = \frac{s e}{\exp(s e) - 1}, \quad e = -2 \log\pi_\theta

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy; -0.5 times a denoiser's error.
        policy_rejected_logps: (B,) the same for the rejected sample.
        beta: weight of the gap next to the error of the chosen sample; ``beta_mapo`` of the code. For small errors the
            gap is a reference-free Diffusion-DPO with its beta at T s = 500.
        snr_value: s above.
        num_train_timesteps: T above.

    Returns:
        (B,) losses, unreduced; the error plus beta times ln 2 where both samples are equally likely.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Hong et al., MaPO, AAAI 2026; mapo-t2i/mapo ``utils.py`` compute_loss (June 2024).
    Reduces to: twice `nll` at ``beta: 0``.

    >>> import torch
    >>> round(mapo(policy_chosen_logps=torch.tensor([-0.05]), policy_rejected_logps=torch.tensor([-0.05])).item(), 6)
    0.169315
    """
    gap = _link(-2 * snr_value * policy_chosen_logps) - _link(-2 * snr_value * policy_rejected_logps)
    return -2 * policy_chosen_logps - beta * logsigmoid(num_train_timesteps * gap)


def _link(value: Tensor) -> Tensor:
    """Return x / (exp(x) - 1): 1 at 0, where it falls with slope -1/2, and 0 far to the right."""
    small = value.abs() < 1e-6
    # beyond 80 float32's exponential is near its end and the quotient 0 to all digits
    safe = torch.where(small, 1.0, value).clamp(max=80.0)
    return torch.where(small, 1 - 0.5 * value, safe / torch.expm1(safe))

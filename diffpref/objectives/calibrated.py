"""CaPO: regression of the implicit-reward gap onto the gap of calibrated rewards."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective

__all__ = ["capo"]


@objective(
    "capo",
    kind="pairwise",
    source="Lee et al., Calibrated Multi-Preference Optimization for Aligning Diffusion Models, arXiv:2502.02588",
    evidence="secondary",
    published=("denoising",),
    signs={},
)
def capo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_score: Tensor,
    rejected_score: Tensor,
    beta_scale: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Draw the difference of implicit rewards to the difference of calibrated rewards.

    .. math:: \ell = \big(R_w - R_l - \beta\, w\,(\Delta_w - \Delta_l)\big)^2

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_score: (B,) R above, a calibrated reward in (0, 1): the expected win rate against other samples of the
            prompt, averaged over rewards (`diffpref.ranking.calibrated_rewards`). No gradient.
        rejected_score: (B,) the same for the rejected sample. No gradient.
        beta_scale: (B,) w above, the paper's sigmoid weight of the timestep, ``sigmoid(b - log SNR)``; 1 where the
            batch has no such column. No gradient.
        beta: as in `dpo`, and twice the paper's, which has no factor 0.5; the paper's value was not found.

    Returns:
        (B,) non-negative losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Lee et al., CaPO, CVPR 2025, as noted by a summary; no code is published.
    Reduces to: beta^2 times `ipo` of sums at ``tau = beta / 2`` where the calibrated rewards differ by 1.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([1.0]), "rejected_log_ratio": torch.tensor([0.0])}
    >>> scores = {"chosen_score": torch.tensor([0.75]), "rejected_score": torch.tensor([0.25])}
    >>> capo(**ratios, **scores, beta=1.0).item()
    0.25
    """
    gap = beta * (chosen_log_ratio - rejected_log_ratio)
    gap = gap if beta_scale is None else beta_scale * gap
    return (chosen_score - rejected_score - gap).square()

"""DSPO: regression of the winner's prediction onto a target that the preference bends away from the reference."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, scale
from diffpref.objectives.base import objective

__all__ = ["dspo"]


@objective(
    "dspo",
    kind="pairwise",
    source="Zhu et al., DSPO: Direct Score Preference Optimization for Diffusion Model Alignment, ICLR 2025",
    evidence="official",
    published=("denoising",),
    signs={},
)
def dspo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_chosen_prediction: Tensor,
    reference_chosen_prediction: Tensor,
    chosen_target: Tensor,
    beta: NonNegative = scale(tokens=0.01, denoising=0.01),
    variant: Literal["sd15", "sdxl_script"] = "sd15",
) -> Tensor:
    r"""Match the score of the winner's distribution, sharpened by how likely the winner is to win.

    .. math:: \ell = \mathrm{mean}\big((\hat\epsilon_w - \epsilon) - \beta\,(1 - \sigma(z))\,(\hat\epsilon_w -
              \hat\epsilon_w^{\mathrm{ref}})\big)^2, \qquad z = \beta\,(\Delta_w - \Delta_l)

    Gradient flows through z and through both differences; the loser enters through z alone.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the winner.
        rejected_log_ratio: (B,) the same for the loser.
        policy_chosen_prediction: (B, C, H, W) of the policy on the winner.
        reference_chosen_prediction: the same of the reference. No gradient.
        chosen_target: (B, C, H, W) what a perfect network would predict. No gradient.
        beta: 0.001, 0.01 or 0.05 with ``sd15``; 1000 to 5000 with ``sdxl_script``.
        variant: the paper's loss, or what the SDXL script does in its place: the mean square of
            :math:`(1 - \sigma(z))\,(\hat\epsilon_w - \hat\epsilon_w^{\mathrm{ref}})` for a sample whose prediction
            moved by 0.1 or more (mean square), else of :math:`1 - \sigma(z)`. The script decides for a whole batch.

    Returns:
        (B,) non-negative losses, unreduced; the winner's denoising error where policy and reference agree (``sd15``).

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhu et al., DSPO, ICLR 2025; huaishengzhu/DSPO ``train.py``.
    Reduces to: twice `nll` at ``beta: 0``.

    >>> import torch
    >>> zero, one = torch.zeros(1), torch.ones(1, 1, 1, 2)
    >>> ratios = {"chosen_log_ratio": zero, "rejected_log_ratio": zero}
    >>> dspo(**ratios, policy_chosen_prediction=one, reference_chosen_prediction=one, chosen_target=0 * one).item()
    1.0
    """
    doubt = (-beta * (chosen_log_ratio - rejected_log_ratio)).sigmoid()
    moved = policy_chosen_prediction - reference_chosen_prediction
    if variant == "sd15":
        pull = (beta * doubt).view(-1, *[1] * (moved.dim() - 1)) * moved
        return (policy_chosen_prediction - chosen_target - pull).square().flatten(1).mean(dim=1)
    distance = moved.square().flatten(1).mean(dim=1)
    return doubt.square() * torch.where(distance >= 0.1, distance, 1.0)

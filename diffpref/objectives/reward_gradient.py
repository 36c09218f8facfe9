"""Losses of rewards that gradients flow through: ReFL, AlignProp and DRaFT."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import Number, Positive
from diffpref.objectives.base import objective

__all__ = ["alignprop", "draft", "refl"]


@objective(
    "refl",
    kind="pointwise",
    source="Xu et al., ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation,"
    " arXiv:2304.05977, section 3",
    evidence="official",
    published=("score",),
    signs={"policy_score": "-"},
)
def refl(*, policy_score: Tensor, grad_scale: Positive = 1e-3, target: Number = 2.0) -> Tensor:
    r"""Raise the reward of a sample up to a target, through the last sampling step.

    .. math:: \ell = c \max(0,\; r^* - r)

    Args:
        policy_score: (B,) differentiable reward of the policy's sample.
        grad_scale: c above.
        target: r* above, in the reward's units (ImageReward: standard deviations).

    Returns:
        (B,) non-negative losses, unreduced; 0 without gradient above the target.

    Raises:
        ShapeError: the tensor is not (B,).

    Source: Xu et al., ImageReward, NeurIPS 2023; THUDM/ImageReward ``ReFL.py``.
    Reduces to: `draft` times the scale while the reward is below the target, up to a constant.

    >>> import torch
    >>> round(refl(policy_score=torch.tensor([0.5])).item(), 6)
    0.0015
    """
    return grad_scale * relu(target - policy_score)


@objective(
    "alignprop",
    kind="pointwise",
    source="Prabhudesai et al., Aligning Text-to-Image Diffusion Models with Reward Backpropagation, arXiv:2310.03739",
    evidence="official",
    published=("score",),
    signs={"policy_score": "-"},
)
def alignprop(
    *,
    policy_score: Tensor,
    loss_coeff: Positive = 0.01,
    target: Number = 1.0,
    distance: Literal["signed", "absolute"] = "signed",
) -> Tensor:
    r"""Raise the reward of a sample towards a target, through a random number of sampling steps.

    .. math:: \ell = c\,(r^* - r) \;\text{ or }\; c\,|r^* - r|

    Args:
        policy_score: (B,) differentiable reward of the policy's sample.
        loss_coeff: c above.
        target: r* above; 1 for HPS, 10 for the aesthetic score.
        distance: ``signed`` for HPS, ``absolute`` for the aesthetic score.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensor is not (B,).

    Source: Prabhudesai et al., AlignProp, 2023; mihirp1998/AlignProp.
    Reduces to: `draft` times the coefficient, up to a constant, with the signed distance.

    >>> import torch
    >>> round(alignprop(policy_score=torch.tensor([0.28])).item(), 6)
    0.0072
    """
    gap = target - policy_score
    return loss_coeff * (gap if distance == "signed" else gap.abs())


@objective(
    "draft",
    kind="pointwise",
    source="Clark et al., Directly Fine-Tuning Diffusion Models on Differentiable Rewards, arXiv:2309.17400",
    evidence="memory",
    published=("score",),
    signs={"policy_score": "-"},
)
def draft(*, policy_score: Tensor) -> Tensor:
    r"""Raise the reward of a sample through the last K sampling steps.

    .. math:: \ell = -r

    Args:
        policy_score: (B,) differentiable reward of the policy's sample.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensor is not (B,).

    Source: Clark et al., DRaFT, ICLR 2024.
    Reduces to: reward maximisation; nothing holds the policy back.

    >>> import torch
    >>> draft(policy_score=torch.tensor([0.5])).item()
    -0.5
    """
    return -policy_score

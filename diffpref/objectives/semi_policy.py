"""SePPO: a sample of an earlier checkpoint is pushed away, or drawn in, as the policy is better or worse than that."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Positive, scale
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective

__all__ = ["seppo"]


@objective(
    "seppo",
    kind="pairwise",
    source="Zhang et al., SePPO: Semi-Policy Preference Optimization for Diffusion Alignment, arXiv:2410.05255, eq. 14",
    evidence="secondary",
    published=("denoising",),
    signs={"chosen_log_ratio": "-"},
)
def seppo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
    aaf: Literal["sign", "indicator", "none"] = "sign",
    zero_sign: Literal[-1, 0, 1] = 1,
) -> Terms:
    r"""Imitate winners; treat samples of an earlier checkpoint as losers only once the policy beats that checkpoint.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - a\,\Delta_r)\big), \qquad a = \mathrm{sign}(\Delta_w)

    without gradient through a (the anchor-based adaptive flipper). The reference is the checkpoint that made the
    sample.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the winner; its sign is the anchor.
        rejected_log_ratio: (B,) the same for the sample of the earlier checkpoint.
        beta: as in `dpo`. The paper's was not found.
        aaf: flip the sample's side (the paper), drop it where the reference is better (its ablation, ``indicator``),
            or never flip (``none``, SPIN-Diffusion's loss).
        zero_sign: a where the two agree exactly, as at the first step; 1 starts as SPIN does. The paper's convention
            is not known. Only with ``aaf: sign``.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree. The metric ``flip_rate`` is 1 where the
        sample is not pushed away, so that its mean is the share of these.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhang et al., SePPO, 2024, eq. 7, 8 and 14 as quoted by its reviews; its repository has no training code.
    Reduces to: `dpo` with ``aaf: none`` and fixed losers.

    >>> import torch
    >>> loss = seppo(chosen_log_ratio=torch.tensor([-0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.losses.item(), 6)
    0.760258
    """
    flip = torch.ones_like(chosen_log_ratio)
    if aaf != "none":
        flip = torch.where(chosen_log_ratio > 0, 1.0, -1.0 if aaf == "sign" else 0.0)
    if aaf == "sign":
        flip = torch.where(chosen_log_ratio == 0, float(zero_sign), flip)
    losses = -logsigmoid(beta * (chosen_log_ratio - flip * rejected_log_ratio))
    return Terms(losses, metrics={"flip_rate": (flip <= 0).to(losses.dtype)})

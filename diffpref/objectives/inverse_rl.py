"""Diffusion-DRO: expert samples against the policy's own, a hinge on denoising errors without pairs or rewards."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative
from diffpref.objectives.base import objective

__all__ = ["diffusion_dro"]


@objective(
    "diffusion_dro",
    kind="pairwise",
    source="Wu et al., Ranking-based Preference Optimization for Diffusion Models from Implicit User Feedback,"
    " arXiv:2510.18353",
    evidence="official",
    aliases=("dro_diffusion",),
    published=("denoising",),
    signs={"gold_log_ratio": "-", "online_log_ratio": "+"},
)
def diffusion_dro(*, gold_log_ratio: Tensor, online_log_ratio: Tensor, margin: NonNegative = 0.001) -> Tensor:
    r"""Make expert samples more likely than the policy's own by a margin: max-margin inverse reinforcement learning.

    .. math:: \ell = \max(0,\; m + 2\,(\Delta_{\mathrm{policy}} - \Delta_{\mathrm{expert}}))

    where :math:`2\Delta` is a difference of denoising errors, reference minus policy.

    Args:
        gold_log_ratio: (B,) policy minus reference log-likelihood of the expert sample.
        online_log_ratio: (B,) the same for a noisy latent of the lagged policy's own trajectory, whose target is the
            noise that the lagged policy predicted there, not fresh noise.
        margin: in units of the denoising error. The paper's loss is smaller by this constant.

    Returns:
        (B,) non-negative losses, unreduced; the margin where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wu et al., Diffusion-DRO, NeurIPS 2025, section 4; basiclab/DiffusionDRO ``train.py``.
    Reduces to: the gradient of `nll` on the experts, as the margin grows, without the second term.

    >>> import torch
    >>> round(diffusion_dro(gold_log_ratio=torch.tensor([0.1]), online_log_ratio=torch.tensor([0.15])).item(), 4)
    0.101
    """
    return relu(margin + 2 * (online_log_ratio - gold_log_ratio))

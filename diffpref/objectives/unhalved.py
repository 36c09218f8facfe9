"""Pairwise losses of scripts whose margin lacks the factor 1/2: their published betas are half of `dpo`'s."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["align_anything", "diffusion_dpo_hinge", "diffusion_dpo_ipo"]


@objective(
    "diffusion_dpo_ipo",
    kind="pairwise",
    source="huggingface/diffusers train_diffusion_dpo.py, loss_type ipo; Azar et al., arXiv:2310.12036, eq. 17",
    evidence="official",
    published=("denoising",),
    signs={},
    same_as="ipo",
)
def diffusion_dpo_ipo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=2500.0),
) -> Tensor:
    r"""Regress the difference of denoising errors onto a target, as the diffusers script does.

    .. math:: \ell = \left(z - \frac{1}{2\beta}\right)^2, \qquad z = 2\,(\Delta_w - \Delta_l)

    where z is the difference of errors: a denoiser's log-ratio is -0.5 times one.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: of the script; half of the beta of `dpo`, and half of the tau of `ipo`.

    Returns:
        (B,) non-negative losses, unreduced; 1 / (4 beta^2) where policy and reference agree, about 1e-8 with the
        script's beta: compose with a ``coefficient`` of beta^2 where the size matters.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: huggingface/diffusers ``research_projects/diffusion_dpo/train_diffusion_dpo.py``; its branch reads an
    attribute that does not exist, and means the same beta.
    Reduces to: 4 times `ipo` of sums at ``tau = 2 beta``.

    >>> import torch
    >>> chosen, rejected = torch.tensor([0.5]), torch.tensor([-0.8])
    >>> round(diffusion_dpo_ipo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, beta=0.1).item(), 4)
    5.76
    """
    difference, target = 2 * (chosen_log_ratio - rejected_log_ratio), 1 / (2 * beta)
    if preference is None:
        return (difference - target).square()
    return preference * (difference - target).square() + (1 - preference) * (difference + target).square()


@objective(
    "diffusion_dpo_hinge",
    kind="pairwise",
    source="huggingface/diffusers train_diffusion_dpo.py, loss_type hinge",
    evidence="official",
    published=("denoising",),
)
def diffusion_dpo_hinge(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=2500.0),
) -> Tensor:
    r"""Penalise pairs whose difference of denoising errors is below 1 / beta, as the diffusers script does.

    .. math:: \ell = \max(0,\; 1 - \beta z), \qquad z = 2\,(\Delta_w - \Delta_l)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: of the script; half of the beta of `dpo`.

    Returns:
        (B,) non-negative losses, unreduced; 1 where the margin is 0, without gradient once it reaches 1.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: huggingface/diffusers ``research_projects/diffusion_dpo/train_diffusion_dpo.py``; PKU-Alignment/
    align-anything ``dpo_diffusion.py`` has the same.
    Reduces to: the hinge of SLiC at twice the beta.

    >>> import torch
    >>> chosen, rejected = torch.tensor([0.5]), torch.tensor([-0.8])
    >>> round(diffusion_dpo_hinge(chosen_log_ratio=chosen, rejected_log_ratio=rejected, beta=0.1).item(), 4)
    0.74
    """
    return _hinge(2 * beta * (chosen_log_ratio - rejected_log_ratio), preference)


def _hinge(margin: Tensor, preference: Tensor | None) -> Tensor:
    """Return max(0, 1 - margin), or its expectation over the label."""
    if preference is None:
        return relu(1 - margin)
    return preference * relu(1 - margin) + (1 - preference) * relu(1 + margin)


@objective(
    "align_anything",
    kind="pairwise",
    source="Ji et al., Align Anything: Training All-Modality Models to Follow Instructions with Language Feedback,"
    " arXiv:2412.15838",
    evidence="official",
    aliases=("align-anything",),
    published=("denoising",),
)
def align_anything(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta_coeff: Positive = scale(tokens=0.1, denoising=2500.0),
    loss_type: Literal["sigmoid", "hinge"] = "sigmoid",
) -> Tensor:
    r"""DPO on images, video or audio with the margin of align-anything's trainers, which lacks the factor 1/2.

    .. math:: \ell = -\log\sigma(m) \;\text{ or }\; \max(0, 1 - m), \qquad m = 2\beta_c\,(\Delta_w - \Delta_l)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta_coeff: of the library; half of the beta of `dpo`.
        loss_type: logistic or hinge.

    Returns:
        (B,) non-negative losses, unreduced; ln 2 or 1 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: PKU-Alignment/align-anything ``trainers/text_to_image/dpo_diffusion.py``.
    Reduces to: `dpo` with twice the beta; `diffusion_dpo_hinge` with ``loss_type: hinge``.

    >>> import torch
    >>> chosen, rejected = torch.tensor([0.5]), torch.tensor([-0.8])
    >>> round(align_anything(chosen_log_ratio=chosen, rejected_log_ratio=rejected, beta_coeff=0.05).item(), 6)
    0.630258
    """
    margin = 2 * beta_coeff * (chosen_log_ratio - rejected_log_ratio)
    return logistic(margin, preference) if loss_type == "sigmoid" else _hinge(margin, preference)

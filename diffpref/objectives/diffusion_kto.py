"""Diffusion-KTO: a utility of the implicit reward of single labelled samples, against a reference point."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective

__all__ = ["Halo", "diffusion_kto", "diffusion_kto_mismatched"]

Halo = Literal["sigmoid", "loss_averse", "risk_seeking_1", "risk_seeking_2", "risk_seeking_3"]


def _losses(reward: Tensor, label: Tensor, halo: Halo, lambda_d: float, lambda_u: float) -> Tensor:
    """Return ``w * (1 - utility)`` of implicit rewards minus their reference point, as the official code writes it."""
    side = 2 * label - 1
    if halo == "sigmoid":
        utility = (side * reward).sigmoid()
    elif halo == "loss_averse":
        utility = logsigmoid(side * reward)
    elif halo == "risk_seeking_1":
        utility = -side * logsigmoid(-reward)
    elif halo == "risk_seeking_2":
        utility = side * (reward / 100).exp() - 1
    else:
        utility = -logsigmoid(-side * reward)
    return torch.where(label > 0, lambda_d, lambda_u) * (1 - utility)


@objective(
    "diffusion_kto",
    kind="pointwise",
    source="Li et al., Aligning Diffusion Models by Optimizing Human Utility, arXiv:2404.04465",
    evidence="official",
    coupling="batch",
    aliases=("diffusion-kto",),
    published=("denoising",),
    signs={},
    stops=("log_ratio",),
)
def diffusion_kto(
    *,
    log_ratio: Tensor,
    label: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
    halo: Halo = "sigmoid",
    kl_mode: Literal["none", "sigmoid"] = "none",
    lambda_d: NonNegative = 1.0,
    lambda_u: NonNegative = 1.0,
) -> Tensor:
    r"""Raise the utility of desirable samples and lower that of undesirable ones, relative to the batch.

    .. math:: \ell = \lambda\,\big(1 - u(\pm\beta\,(\Delta - z))\big), \qquad
              z = \max(0, \mathrm{mean}\,\Delta) \;\text{ or }\; \tfrac12(\mathrm{mean}_+\Delta + \mathrm{mean}_-\Delta)

    with the sign of the label. The reference point z is a constant of the global batch.

    Args:
        log_ratio: (B,) policy minus reference log-likelihood of the sample.
        label: (B,) 1 where it is desirable, else 0. No gradient.
        beta: strength. The code's 1000 multiplies a difference of denoising errors, which is twice a log-ratio.
        halo: the utility u: ``sigmoid`` (the paper's choice), ``loss_averse`` (its logarithm), or one of the code's
            three risk-seeking ones, of which the second overflows where beta times the log-ratio passes 8000.
        kl_mode: of the reference point: all samples, not below 0 (``none``, the default of the code), or the mean of
            both classes' means (``sigmoid``). `diffusion_kto_mismatched` is the code's third, ``original``.
        lambda_d: weight of desirable samples.
        lambda_u: weight of undesirable ones.

    Returns:
        (B,) losses, unreduced; 0.5 at the reference point, in (0, 1) with the sigmoid.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Li et al., Diffusion-KTO, NeurIPS 2024; jacklishufan/diffusion-kto ``train_kto_sd_v1.5.py``.
    Reduces to: `diffusion_kto_mismatched` where both have the reference point 0.

    >>> import torch
    >>> loss = diffusion_kto(log_ratio=torch.tensor([0.0, 0.0]), label=torch.tensor([1.0, 0.0]))
    >>> loss.tolist()
    [0.5, 0.5]
    """
    ratio = log_ratio.detach()
    if kl_mode == "none":
        point = ratio.mean().clamp(min=0)
    else:
        good, bad = (label > 0).to(ratio.dtype), (label <= 0).to(ratio.dtype)
        point = 0.5 * ((good * ratio).sum() / (good.sum() + 1e-6) + (bad * ratio).sum() / (bad.sum() + 1e-6))
    return _losses(beta * (log_ratio - point), label, halo, lambda_d, lambda_u)


@objective(
    "diffusion_kto_mismatched",
    kind="pointwise",
    source="Li et al., Aligning Diffusion Models by Optimizing Human Utility, arXiv:2404.04465, kl_mode original",
    evidence="official",
    coupling="batch",
    published=("denoising",),
    signs={},
    stops=("mismatched_log_ratio",),
)
def diffusion_kto_mismatched(
    *,
    log_ratio: Tensor,
    mismatched_log_ratio: Tensor,
    label: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
    halo: Halo = "sigmoid",
    lambda_d: NonNegative = 1.0,
    lambda_u: NonNegative = 1.0,
) -> Tensor:
    r"""Diffusion-KTO with the reference point of text KTO: how far the policy is on samples under others' captions.

    .. math:: \ell = \lambda\,\big(1 - u(\pm\beta\,(\Delta - z))\big), \qquad
              z = \mathrm{mean}\,\Delta_{\mathrm{mismatched}}

    Args:
        log_ratio: (B,) policy minus reference log-likelihood of the sample.
        mismatched_log_ratio: (B,) the same under the caption of another record. It enters as a constant; unlike in
            text, its mean may be negative.
        label: (B,) 1 where it is desirable, else 0. No gradient.
        beta: strength, as in `diffusion_kto`.
        halo: the utility, as in `diffusion_kto`.
        lambda_d: weight of desirable samples.
        lambda_u: weight of undesirable ones.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: jacklishufan/diffusion-kto ``train_kto_sd_v1.5.py``, where captions are rolled by one in the batch.
    Reduces to: `diffusion_kto` where both have the reference point 0.

    >>> import torch
    >>> ratios = {"log_ratio": torch.tensor([0.5]), "mismatched_log_ratio": torch.tensor([0.5])}
    >>> diffusion_kto_mismatched(**ratios, label=torch.tensor([1.0])).item()
    0.5
    """
    point = mismatched_log_ratio.detach().mean()
    return _losses(beta * (log_ratio - point), label, halo, lambda_d, lambda_u)

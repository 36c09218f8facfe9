"""DPO on single sampling steps, within a hard trust region: D3PO, SPO and LPO.

One loss: log-ratios of a step are clipped where the ratio leaves [1 - eps, 1 + eps], beyond which there is no gradient.
Log-probabilities of a step are averaged, not summed, over the latent's elements, as in the official codes.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Fraction, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["d3po", "lpo", "spo"]


def _gap(chosen: Tensor, rejected: Tensor, eps: float) -> Tensor:
    """Return the difference of two log-ratios, each ``log clip(exp(x), 1 - eps, 1 + eps)``."""
    low, high = math.log1p(-eps), math.log1p(eps)
    return chosen.clamp(low, high) - rejected.clamp(low, high)


@objective(
    "d3po",
    kind="step",
    source="Yang et al., Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model, arXiv:2311.13231",
    evidence="official",
    published=("steps",),
)
def d3po(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    eps: Fraction = 0.1,
) -> Tensor:
    r"""Prefer the steps of one trajectory to those of another from the same prompt.

    .. math:: \ell = -\log\sigma\big(\beta\,(2p - 1)\,(u_w - u_l)\big), \qquad
              u = \log\mathrm{clip}(e^\Delta, 1 - \epsilon, 1 + \epsilon)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-probability of a step of the preferred trajectory.
        rejected_log_ratio: (B,) the same for the step of the other trajectory.
        preference: (B,) p above: 1 where the first is better, 0 where the second is, 0.5 for a tie, which has the loss
            ln 2 without gradient, as in the code; 1 where the batch has no such column. No gradient.
        beta: inverse temperature, published for steps. On a denoiser's log-ratios, which never leave the region, it is
            that of `dpo`.
        eps: how far a ratio may move.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Yang et al., D3PO, CVPR 2024; yk7333/d3po ``scripts/train.py``.
    Reduces to: `dpo` inside of the trust region.

    >>> import torch
    >>> loss = d3po(chosen_log_ratio=torch.tensor([0.02]), rejected_log_ratio=torch.tensor([-0.01]))
    >>> round(loss.item(), 6)
    0.691648
    """
    margin = beta * _gap(chosen_log_ratio, rejected_log_ratio, eps)
    return -logsigmoid(margin if preference is None else (2 * preference - 1) * margin)


@objective(
    "spo",
    kind="step",
    source="Liang et al., Aesthetic Post-Training Diffusion Models from Generic Preferences with Step-by-step"
    " Preference Optimization, arXiv:2406.04314",
    evidence="official",
    aliases=("step_aware_po",),
    published=("steps",),
)
def spo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=10.0, denoising=5000.0),
    eps: Fraction = 0.1,
) -> Tensor:
    r"""Prefer the better of two next latents that were sampled from one latent.

    .. math:: \ell = -\log\sigma\big(\beta\,(u_w - u_l)\big), \qquad
              u = \log\mathrm{clip}(e^\Delta, 1 - \epsilon, 1 + \epsilon)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-probability of the step to the better candidate.
        rejected_log_ratio: (B,) the same for the step to the worse one (`diffpref.ranking.step_pair` selects them).
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: inverse temperature, published for steps. On a denoiser's log-ratios, which never leave the region, it is
            that of `dpo`.
        eps: how far a ratio may move.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liang et al., SPO, CVPR 2025; RockeyCoss/SPO ``train_spo.py``.
    Reduces to: `dpo` inside of the trust region.

    >>> import torch
    >>> loss = spo(chosen_log_ratio=torch.tensor([0.02]), rejected_log_ratio=torch.tensor([-0.01]))
    >>> round(loss.item(), 6)
    0.554355
    """
    return logistic(beta * _gap(chosen_log_ratio, rejected_log_ratio, eps), preference)


@objective(
    "lpo",
    kind="step",
    source="Zhang et al., Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization,"
    " arXiv:2502.01051",
    evidence="official",
    aliases=("latent_po",),
    published=("steps",),
    same_as="spo",
)
def lpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=500.0, denoising=5000.0),
    eps: Fraction = 0.1,
) -> Tensor:
    r"""SPO with candidates that a reward model judges in latent space; its beta is fifty times SPO's.

    .. math:: \ell = -\log\sigma\big(\beta\,(u_w - u_l)\big), \qquad
              u = \log\mathrm{clip}(e^\Delta, 1 - \epsilon, 1 + \epsilon)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-probability of the step to the better candidate.
        rejected_log_ratio: (B,) the same for the step to the worse one (`diffpref.ranking.dynamic_thresholds` says how
            sure the reward model must be at each timestep).
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: inverse temperature, published for steps. On a denoiser's log-ratios, which never leave the region, it is
            that of `dpo`.
        eps: how far a ratio may move.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhang et al., LPO, NeurIPS 2025; Kwai-Kolors/LPO ``train_lpo.py``.
    Reduces to: `spo` at its beta; `dpo` inside of the trust region.

    >>> import torch
    >>> loss = lpo(chosen_log_ratio=torch.tensor([0.001]), rejected_log_ratio=torch.tensor([-0.001]))
    >>> round(loss.item(), 6)
    0.313262
    """
    return logistic(beta * _gap(chosen_log_ratio, rejected_log_ratio, eps), preference)

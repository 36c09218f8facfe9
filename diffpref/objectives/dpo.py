"""Direct Preference Optimization: the logistic loss on the implicit-reward margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import HalfProbability, Positive, scale
from diffpref.objectives.base import objective

__all__ = ["dpo"]


@objective(
    "dpo",
    kind="pairwise",
    source="Rafailov et al., arXiv:2305.18290, eq. 7; Wallace et al., arXiv:2311.12908, eq. 14",
    evidence="official",
    aliases=("sigmoid", "diffusion_dpo", "ppd", "balanced_dpo"),
    published=("tokens", "denoising"),
)
def dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    label_smoothing: HalfProbability = 0.0,
) -> Tensor:
    r"""Classify which of two samples was preferred, with the implicit reward as the logit.

    .. math:: \ell = -p \log\sigma(m) - (1 - p) \log\sigma(-m), \qquad m = \beta\,(\Delta_w - \Delta_l)

    where :math:`p = \epsilon + (1 - 2\epsilon)\,\text{preference}`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: inverse temperature; larger keeps closer to the reference. In nats it absorbs no constant. On a denoiser's
            log-ratios (-0.5 times the difference of mean squared errors) it is the official Diffusion-DPO beta, which
            absorbs the number of timesteps, the number of latent elements and the ELBO's weights; with the likelihood's
            ``weighting="elbo"`` log-ratios are in nats again, and beta is to be set near 0.01.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5) (conservative DPO).

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Rafailov et al., Direct Preference Optimization, NeurIPS 2023, eq. 7; Wallace et al., Diffusion Model
    Alignment Using Direct Preference Optimization, CVPR 2024, eq. 14. Constants follow the official DiffusionDPO code,
    which has the factor 0.5 and the mean over elements that eq. 14 lacks. Label smoothing: Mitchell's note on
    conservative DPO.
    Reduces to: logistic regression on ``beta * log_ratio`` without smoothing and preferences.

    >>> import torch
    >>> loss = dpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    if preference is None:
        if label_smoothing == 0:
            return -logsigmoid(margin)
        return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    probability = label_smoothing + (1 - 2 * label_smoothing) * preference
    return -probability * logsigmoid(margin) - (1 - probability) * logsigmoid(-margin)

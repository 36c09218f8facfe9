"""Token-level DPO: the margin of DPO plus the difference of the two responses' sequential KL."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective

__all__ = ["tdpo1", "tdpo2"]

SOURCE = "Zeng et al., arXiv:2404.11999, eq. 17 and 19; Vance0124/Token-level-Direct-Preference-Optimization tdpo_loss"


@objective(
    "tdpo1",
    kind="token",
    source=SOURCE,
    evidence="official",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "chosen_kl": "-", "rejected_kl": "+"},
)
def tdpo1(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_kl: Tensor,
    rejected_kl: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Classify the preferred response by log-ratio plus sequential KL, gradient through both.

    .. math:: \ell = -\log\sigma\big(\beta\,[(\Delta_w - \Delta_l) - (D_l - D_w)]\big)

    where :math:`D = \sum_t \mathrm{KL}(\pi_\mathrm{ref}(\cdot\mid t) \,\|\, \pi_\theta(\cdot\mid t))`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_kl: (B,) KL of the policy from the reference, KL(reference || policy), summed over the units of the
            chosen sample: tokens of text; frames or timestep draws of a denoiser, on the scale of its log-ratio.
        rejected_kl: (B,) the same for the rejected sample.
        beta: inverse temperature; it multiplies the KL too.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zeng et al., Token-level Direct Preference Optimization, ICML 2024, eq. 17; constants follow the official
    code, whose read-me advises this form for small learning rates. It sums over tokens, never averages.
    Reduces to: `dpo` where both KLs are equal; `tdpo2` with alpha=1 in value, not in gradient.

    >>> import torch
    >>> one = torch.tensor([1.2]), torch.tensor([0.3]), torch.tensor([0.20]), torch.tensor([0.35])
    >>> names = "chosen_log_ratio", "rejected_log_ratio", "chosen_kl", "rejected_kl"
    >>> round(tdpo1(**dict(zip(names, one)), beta=0.1).item(), 6)
    0.65635
    """
    margin = chosen_log_ratio - rejected_log_ratio
    return -logsigmoid(beta * (margin - (rejected_kl - chosen_kl)))


@objective(
    "tdpo2",
    kind="token",
    source=SOURCE,
    evidence="official",
    aliases=("tdpo",),
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "rejected_kl": "+"},
    stops=("chosen_kl",),
)
def tdpo2(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_kl: Tensor,
    rejected_kl: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = 0.5,
) -> Tensor:
    r"""Classify the preferred response, and hold the policy near the reference on the loser alone.

    .. math:: \ell = -\log\sigma\big(\beta\,[(\Delta_w - \Delta_l) - \alpha\,(D_l - \mathrm{sg}(D_w))]\big)

    where :math:`D = \sum_t \mathrm{KL}(\pi_\mathrm{ref}(\cdot\mid t) \,\|\, \pi_\theta(\cdot\mid t))`. Without gradient
    into the winner's KL the winner may move away from the reference, the loser may not.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_kl: (B,) KL of the policy from the reference, KL(reference || policy), summed over the units of the
            chosen sample: tokens of text; frames or timestep draws of a denoiser. A constant here: no gradient.
        rejected_kl: (B,) the same for the rejected sample, with gradient.
        beta: inverse temperature; it multiplies the KL too.
        alpha: weight of the KL's difference.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zeng et al., Token-level Direct Preference Optimization, ICML 2024, eq. 19; constants follow the official
    code, whose read-me advises this form for large learning rates.
    Reduces to: `dpo` at alpha=0; `tdpo1` in value at alpha=1.

    >>> import torch
    >>> one = torch.tensor([1.2]), torch.tensor([0.3]), torch.tensor([0.20]), torch.tensor([0.35])
    >>> names = "chosen_log_ratio", "rejected_log_ratio", "chosen_kl", "rejected_kl"
    >>> round(tdpo2(**dict(zip(names, one)), beta=0.1, alpha=0.5).item(), 6)
    0.652748
    """
    margin = chosen_log_ratio - rejected_log_ratio
    return -logsigmoid(beta * (margin - alpha * (rejected_kl - chosen_kl.detach())))

"""Kahneman-Tversky Optimization: bounded utilities of single samples; its relatives without KL term, and on pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective

__all__ = ["apo_zero_unpaired", "kto", "kto_pair"]


@objective(
    "kto",
    kind="pointwise",
    source="Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306, eq. 8",
    evidence="official",
    coupling="batch",
    stops=("mismatched_log_ratio",),
    signs={},
)
def kto(
    *,
    log_ratio: Tensor,
    label: Tensor,
    mismatched_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    desirable_weight: NonNegative = 1.0,
    undesirable_weight: NonNegative = 1.0,
) -> Tensor:
    r"""Make desirable samples better, and undesirable ones worse, than what the policy gained anyway.

    .. math:: \ell = y\,\lambda_D \big(1 - \sigma(\beta\,(\Delta - z_0))\big)
                   + (1 - y)\,\lambda_U \big(1 - \sigma(\beta\,(z_0 - \Delta))\big), \qquad
              z_0 = \max\big(0, \overline{\Delta_\text{mismatched}}\big)

    :math:`z_0` estimates the KL divergence from samples that belong to other prompts; it is a constant.

    Args:
        log_ratio: (B,) policy minus reference log-likelihood of each sample.
        label: (B,) y above: 1 desirable, 0 not; between them a probability. No gradient.
        mismatched_log_ratio: (B,) the same for each record's prompt with a sample of another one. No gradient.
        beta: as of `dpo`.
        desirable_weight: lambda_D above.
        undesirable_weight: lambda_U above; choose both so that the weights times the numbers of samples have a ratio
            of 1 to 4/3.

    Returns:
        (B,) losses between 0 and their weight, unreduced; half the weight where log-ratio and z_0 agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Ethayarajh et al., KTO, ICML 2024, eq. 8; code: ContextualAI/HALOs, TRL ``KTOTrainer``. Their companion is
    the next record of the batch; here it is drawn from the data.
    Reduces to: `apo_zero_unpaired` where the estimate of the KL divergence is not positive.

    >>> import torch
    >>> ratios = {"log_ratio": torch.tensor([0.5, -1.0]), "mismatched_log_ratio": torch.tensor([0.5, 0.1])}
    >>> [round(loss, 6) for loss in kto(**ratios, label=torch.tensor([1.0, 0.0])).tolist()]
    [0.495, 0.467546]
    """
    baseline = relu(mismatched_log_ratio.detach().mean())
    gain = beta * (log_ratio - baseline)
    desirable = desirable_weight * torch.sigmoid(-gain)
    undesirable = undesirable_weight * torch.sigmoid(gain)
    return label * desirable + (1 - label) * undesirable


@objective(
    "apo_zero_unpaired",
    kind="pointwise",
    source="D'Oosterlinck et al., Anchored Preference Optimization, arXiv:2408.06266, eq. 7, on single samples",
    evidence="official",
    aliases=("kto_zero",),
    signs={},
)
def apo_zero_unpaired(
    *,
    log_ratio: Tensor,
    label: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    desirable_weight: NonNegative = 1.0,
    undesirable_weight: NonNegative = 1.0,
) -> Tensor:
    r"""Raise desirable samples and lower undesirable ones: KTO without its estimate of the KL divergence.

    .. math:: \ell = y\,\lambda_D \big(1 - \sigma(\beta\,\Delta)\big) + (1 - y)\,\lambda_U\,\sigma(\beta\,\Delta)

    Args:
        log_ratio: (B,) policy minus reference log-likelihood of each sample.
        label: (B,) y above: 1 desirable, 0 not; between them a probability. No gradient.
        beta: as of `dpo`.
        desirable_weight: lambda_D above.
        undesirable_weight: lambda_U above.

    Returns:
        (B,) losses between 0 and their weight, unreduced; half the weight where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: D'Oosterlinck et al., Anchored Preference Optimization, TACL 2025, eq. 7; code: TRL ``KTOTrainer``,
    ``loss_type="apo_zero_unpaired"``.
    Reduces to: half of `apo_zero` where every second sample is desirable.

    >>> import torch
    >>> loss = apo_zero_unpaired(log_ratio=torch.tensor([0.5]), label=torch.tensor([1.0]))
    >>> round(loss.item(), 6)
    0.487503
    """
    desirable = desirable_weight * torch.sigmoid(-beta * log_ratio)
    undesirable = undesirable_weight * torch.sigmoid(beta * log_ratio)
    return label * desirable + (1 - label) * undesirable


@objective(
    "kto_pair",
    kind="pairwise",
    source="Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306",
    evidence="memory",
    coupling="batch",
    stops=("chosen_log_ratio", "rejected_log_ratio"),
)
def kto_pair(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""KTO on pairs, with the KL divergence of each half estimated from the other half of the batch.

    .. math:: \ell = \tfrac12 \big(1 - \sigma(\beta\,(\Delta_w - z_l))\big)
                   + \tfrac12 \big(1 - \sigma(\beta\,(z_w - \Delta_l))\big), \qquad
              z_w = \max(0, \overline{\Delta_w}), \quad z_l = \max(0, \overline{\Delta_l})

    The estimates are constants.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        beta: as of `dpo`.

    Returns:
        (B,) losses in (0, 1), unreduced: the mean of the pair's two; 1/2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Ethayarajh et al., KTO, ICML 2024, as TRL had it once (``loss_type="kto_pair"``); whether gradient flowed
    into the estimates there was not verified.
    Reduces to: half of `apo_zero` where neither mean is positive.

    >>> import torch
    >>> loss = kto_pair(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.477524
    """
    chosen_gain, rejected_gain = relu(chosen_log_ratio.detach().mean()), relu(rejected_log_ratio.detach().mean())
    kept = torch.sigmoid(-beta * (chosen_log_ratio - rejected_gain))
    avoided = torch.sigmoid(beta * (rejected_log_ratio - chosen_gain))
    return (kept + avoided) / 2

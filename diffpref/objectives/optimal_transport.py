"""Alignment via Optimal Transport: the distribution of a batch's chosen samples should dominate the rejected ones'."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import HalfProbability, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["aot", "aot_unpaired"]


@objective(
    "aot",
    kind="pairwise",
    source="Melnyk et al., Distributional Preference Alignment of LLMs via Optimal Transport, arXiv:2406.05882",
    evidence="official",
    coupling="batch",
    aliases=("aot_pair", "aot_paired"),
)
def aot(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    label_smoothing: HalfProbability = 0.0,
) -> Tensor:
    r"""Compare the policy's margins of a batch with the reference's, smallest with smallest, largest with largest.

    .. math:: \ell_{(i)} = -\log\sigma\big(\beta\,(d_{(i)} - d^\text{ref}_{(i)})\big), \qquad
              d = \log\pi(x_w) - \log\pi(x_l)

    where (i) is the i-th smallest of the batch. The larger the batch, the more it says.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        reference_chosen_logps: (B,) the same under the reference.
        reference_rejected_logps: (B,) the same for the rejected sample.
        beta: as of `dpo`.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5).

    Returns:
        (B,) positive losses, unreduced, in the order of the sorted margins and not of the records.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Melnyk et al., AOT, NeurIPS 2024; code: TRL ``loss_type="aot"`` (once ``"aot_pair"``).
    Reduces to: `dpo` of a batch of one.

    >>> import torch
    >>> policy = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> chosen, rejected = torch.tensor([-13.0]), torch.tensor([-13.2])
    >>> reference = {"reference_chosen_logps": chosen, "reference_rejected_logps": rejected}
    >>> round(aot(**policy, **reference, beta=0.1).item(), 6)
    0.630258
    """
    margins = (policy_chosen_logps - policy_rejected_logps).sort().values
    anchors = (reference_chosen_logps - reference_rejected_logps).sort().values
    return logistic(beta * (margins - anchors), label_smoothing=label_smoothing)


@objective(
    "aot_unpaired",
    kind="pairwise",
    source="Melnyk et al., Distributional Preference Alignment of LLMs via Optimal Transport, arXiv:2406.05882",
    evidence="official",
    coupling="batch",
)
def aot_unpaired(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    label_smoothing: HalfProbability = 0.0,
) -> Tensor:
    r"""Compare the chosen samples of a batch with the rejected ones, smallest with smallest, largest with largest.

    .. math:: \ell_{(i)} = -\log\sigma\big(\beta\,(\Delta_{w,(i)} - \Delta_{l,(i)})\big)

    where (i) is the i-th smallest of the batch, of each side by itself: who was compared with whom does not matter.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen samples.
        rejected_log_ratio: (B,) the same for the rejected samples.
        beta: as of `dpo`.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5).

    Returns:
        (B,) positive losses, unreduced, in the order of the sorted log-ratios and not of the records.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Melnyk et al., AOT, NeurIPS 2024; code: TRL ``loss_type="aot_unpaired"``.
    Reduces to: `dpo` of a batch of one.

    >>> import torch
    >>> loss = aot_unpaired(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    chosen, rejected = chosen_log_ratio.sort().values, rejected_log_ratio.sort().values
    return logistic(beta * (chosen - rejected), label_smoothing=label_smoothing)

"""What the log says of a preference objective: implicit rewards, under the names that TRL users know."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["reward_metrics"]


def reward_metrics(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float) -> dict[str, Tensor]:
    """Return implicit rewards ``beta * log_ratio`` and how they compare.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        beta: that of the objective.

    Returns:
        Detached (B,) tensors ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` and ``rewards/accuracies``
        (1 where the chosen reward is larger, 0.5 where they are equal, as at the first step).

    Raises:
        ShapeError: the tensors differ in shape.
    """
    if chosen_log_ratio.shape != rejected_log_ratio.shape:
        raise ShapeError(
            f"reward metrics: chosen_log_ratio has shape {tuple(chosen_log_ratio.shape)}, "
            f"rejected_log_ratio {tuple(rejected_log_ratio.shape)}; they must be equal"
        )
    chosen, rejected = beta * chosen_log_ratio.detach(), beta * rejected_log_ratio.detach()
    # Compared before the multiplication, so that rounding makes no ties.
    accuracies = 0.5 + 0.5 * torch.sign(chosen_log_ratio.detach() - rejected_log_ratio.detach())
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": accuracies,
    }

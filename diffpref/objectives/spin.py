"""Self-play fine-tuning: real answers against those of the previous iterate, without preference labels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["spin"]


@objective(
    "spin",
    kind="pairwise",
    source="Chen et al., arXiv:2401.01335, eq. 4.7; uclaml/SPIN trainer.py spin_loss",
    evidence="official",
)
def spin(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    link: Literal["logistic", "hinge"] = "logistic",
) -> Tensor:
    r"""Tell the data's answer from the opponent's, where the opponent is the model of the round before.

    .. math:: \ell = -\log\sigma(m) \;\text{ or }\; \max(0,\; 1 - m),
              \qquad m = \beta\,(\Delta_\text{real} - \Delta_\text{gen})

    Args:
        chosen_log_ratio: (B,) log-likelihood of the data's answer under the policy minus that under the opponent, which
            is the reference of this round.
        rejected_log_ratio: (B,) the same for an answer that the opponent made.
        beta: inverse temperature; the source's lambda.
        link: the hinge is the official code's other loss.

    Returns:
        (B,) non-negative losses, unreduced; ln 2, or 1, where the policy is the opponent.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Chen et al., Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models, ICML 2024;
    constants follow the official code. What makes it SPIN is where the pairs come from: a loop's business.
    Reduces to: `dpo` with the logistic link.

    >>> import torch
    >>> pair = {"chosen_log_ratio": torch.tensor([2.0]), "rejected_log_ratio": torch.tensor([0.0])}
    >>> spin(**pair, beta=0.25, link="hinge").item()
    0.5
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    return logistic(margin) if link == "logistic" else (1 - margin).clamp(min=0)

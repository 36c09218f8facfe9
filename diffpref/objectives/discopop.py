"""DiscoPOP: a pair loss that a language model discovered, between the logistic and the exponential loss."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected

__all__ = ["discopop"]


@objective(
    "discopop",
    kind="pairwise",
    source="Lu et al., Discovering Preference Optimization Algorithms with and for Large Language Models,"
    " arXiv:2406.08414, eq. 5",
    evidence="official",
    signs={},
)
def discopop(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=2500.0),
    temperature: Annotated[Number, Field(gt=0, le=1)] = 0.05,
) -> Tensor:
    r"""Mix the logistic and the exponential loss by the margin itself.

    .. math:: \ell = (1 - w) \log(1 + e^{-m}) + w\,e^{-m}, \qquad w = \sigma(m / \tau), \quad
              m = \beta\,(\Delta_w - \Delta_l)

    It is neither convex nor monotone: near 0 the loss may rise with the margin. The weight w is differentiated. With
    soft labels the loss is the expectation over the label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        temperature: tau above, in (0, 1]; larger ones would let the exponential overflow for wrongly ordered pairs.

    Returns:
        (B,) positive losses, unreduced; (ln 2 + 1) / 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Lu et al., DiscoPOP (log-ratio modulated loss), NeurIPS 2024, eq. 5; code: luchris429/DiscoPOP, TRL
    ``loss_type="discopop"``.
    Reduces to: `dpo` for pairs ordered wrongly by much more than tau.

    >>> import torch
    >>> loss = discopop(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.877981
    """

    def mixed(better: Tensor, worse: Tensor) -> Tensor:
        margin = beta * (better - worse)
        # w e^-m as one exponential, which stays finite where e^-m alone does not.
        exponential = torch.exp(logsigmoid(margin / temperature) - margin)
        return torch.sigmoid(-margin / temperature) * -logsigmoid(margin) + exponential

    return expected(mixed, preference, chosen_log_ratio, rejected_log_ratio)

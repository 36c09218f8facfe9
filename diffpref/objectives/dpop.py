"""DPO-Positive (Smaug): DPO whose margin pays for a chosen sample less likely than under the reference."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected, logistic

__all__ = ["dpop"]


@objective(
    "dpop",
    kind="pairwise",
    source="Pal et al., Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive, arXiv:2402.13228",
    evidence="secondary",
    aliases=("dpo_positive", "smaug"),
)
def dpop(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.3, denoising=15000.0),
    dpop_lambda: NonNegative = 50.0,
) -> Tensor:
    r"""Compare a pair as DPO does, and forbid that the chosen sample becomes less likely.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l - \lambda \max(0, -\Delta_w))\big)

    With soft labels it is the expectation over the label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        dpop_lambda: lambda above. At 50 the first steps have losses above 10: clip the gradient.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Pal et al., Smaug, 2024. Code: LuJunru/SamPO ``loss_type="dpop"``, which follows the authors' answer.
    Reduces to: `dpo` at dpop_lambda=0, and wherever the chosen log-ratio is positive.

    >>> import torch
    >>> loss = dpop(chosen_log_ratio=torch.tensor([-1.0]), rejected_log_ratio=torch.tensor([1.0]))
    >>> round(loss.item(), 4)
    15.6
    """

    def guarded(better: Tensor, worse: Tensor) -> Tensor:
        return logistic(beta * (better - worse - dpop_lambda * relu(-better)))

    return expected(guarded, preference, chosen_log_ratio, rejected_log_ratio)

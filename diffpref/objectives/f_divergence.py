"""DPO under divergences other than the reverse KL: the score of a sample is f' of its likelihood ratio."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from diffpref.core.annotations import Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["f_dpo"]

EXPONENT = 60.0
"""Exponents are taken to be no larger, so that float32 holds the score times any beta."""
Alpha = Annotated[Number, Field(gt=0, le=1)]


@objective(
    "f_dpo",
    kind="pairwise",
    source="Wang et al., Beyond Reverse KL: Generalizing Direct Preference Optimization, arXiv:2309.16240, eq. 10",
    evidence="official",
)
def f_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "forward_kl",
    alpha: Alpha = 0.5,
) -> Tensor:
    r"""Classify the pair as DPO does, where the policy is held to the reference by another divergence.

    .. math:: \ell = -p \log\sigma(m) - (1 - p) \log\sigma(-m), \qquad m = \beta\,\big(s(\Delta_w) - s(\Delta_l)\big)

    with :math:`s(u) = f'(e^u)` up to a constant: :math:`u` for the reverse KL, :math:`1 - e^{-u}` for the forward KL,
    :math:`\log 2 - \log(1 + e^{-u})` for Jensen-Shannon, :math:`(1 - e^{-\alpha u}) / \alpha` for alpha. All but the
    first saturate as the sample becomes likelier, and grow exponentially as it becomes less likely, except JS.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) p above, P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        divergence: which f. Total variation and chi-squared are no choices: their f' cannot be inverted, or is finite
            at 0.
        alpha: of the alpha divergence, in (0, 1]; the exponent is -alpha as in the paper, while TRL's
            ``f_alpha_divergence_coef`` is 1 - alpha.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree. Exponents above 60 are taken for 60.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wang et al., Beyond Reverse KL, ICLR 2024; code: alecwangcq/f-divergence-dpo, TRL ``f_divergence_type``.
    Reduces to: `dpo` with the reverse KL, and as alpha goes to 0; the forward KL at alpha=1.

    >>> import torch
    >>> loss = f_dpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.61547
    """

    def score(log_ratio: Tensor) -> Tensor:
        if divergence == "reverse_kl":
            return log_ratio
        if divergence == "js":
            return math.log(2) - softplus(-log_ratio)
        power = 1.0 if divergence == "forward_kl" else alpha
        return -torch.expm1((-power * log_ratio).clamp(max=EXPONENT)) / power

    return logistic(beta * (score(chosen_log_ratio) - score(rejected_log_ratio)), preference)

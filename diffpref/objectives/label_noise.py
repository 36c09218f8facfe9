"""Logistic losses for labels that may be wrong: conservative (cDPO) and provably robust (rDPO)."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import HalfProbability, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected, logistic

__all__ = ["cdpo", "rdpo"]


@objective(
    "cdpo",
    kind="pairwise",
    source="Mitchell, A note on DPO with noisy preferences, 2023; ContextualAI/HALOs CDPOTrainer",
    evidence="official",
    aliases=("conservative_dpo",),
    same_as="dpo",
    signs={},
)
def cdpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    label_smoothing: HalfProbability = 0.2,
) -> Tensor:
    r"""Classify the pair as DPO does, as if each label were wrong with a fixed probability.

    .. math:: \ell = -(1 - \epsilon) \log\sigma(m) - \epsilon \log\sigma(-m), \qquad m = \beta\,(\Delta_w - \Delta_l)

    The margin is drawn to the finite value :math:`\log\frac{1 - \epsilon}{\epsilon}`. With soft labels the target is
    :math:`\epsilon + (1 - 2\epsilon)\,\text{preference}`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        label_smoothing: epsilon above, in [0, 0.5). The default is that of HALOs.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Mitchell, A note on DPO with noisy preferences and relationship to IPO, 2023; official code:
    eric-mitchell/direct-preference-optimization ``preference_loss(label_smoothing=...)``. It is `dpo` with another
    default.
    Reduces to: `dpo` at label_smoothing=0; always `dpo` plus ``label_smoothing * margin``.

    >>> import torch
    >>> loss = cdpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.656258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference, label_smoothing)


@objective(
    "rdpo",
    kind="pairwise",
    source="Chowdhury et al., Provably Robust DPO, arXiv:2403.00409",
    evidence="official",
    aliases=("robust", "robust_dpo"),
)
def rdpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    label_smoothing: HalfProbability = 0.1,
) -> Tensor:
    r"""Estimate without bias the DPO loss of clean labels from labels that flip at a known rate.

    .. math:: \ell = \frac{-(1 - \epsilon) \log\sigma(m) + \epsilon \log\sigma(-m)}{1 - 2\epsilon},
              \qquad m = \beta\,(\Delta_w - \Delta_l)

    The expectation over flips is the clean loss. With soft labels the loss is the expectation over the label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        label_smoothing: epsilon above, the rate of flips, in [0, 0.5). Taken too high, training diverges.

    Returns:
        (B,) losses, unreduced; ln 2 where the margin is 0. They may be negative: without lower bound in the margin.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Chowdhury, Kini and Natarajan, Provably Robust DPO: Aligning Language Models with Noisy Feedback, ICML 2024;
    code: TRL ``loss_type="robust"``.
    Reduces to: `dpo` at label_smoothing=0.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(rdpo(**ratios, beta=0.1, label_smoothing=0.2).item(), 6)
    0.586925
    """

    def unbiased(better: Tensor, worse: Tensor) -> Tensor:
        margin = beta * (better - worse)
        excess = label_smoothing / (1 - 2 * label_smoothing)
        return logistic(margin) - excess * margin

    return expected(unbiased, preference, chosen_log_ratio, rejected_log_ratio)

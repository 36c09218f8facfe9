"""DPO whose pairs count differently: by a reward model's margin (MADPO), by closeness in meaning (Sem-DPO).

The weights are the functions of `diffpref.objectives.weightings`, which a recipe may put on any other objective too.
"""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import NonNegative, Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic
from diffpref.objectives.weightings import MADPO_TAU, madpo_weights, sem_dpo_weights

__all__ = ["madpo", "sem_dpo"]


@objective(
    "madpo",
    kind="pairwise",
    source="Margin Adaptive DPO, arXiv:2510.05342",
    evidence="official",
    aliases=("margin_adaptive_dpo",),
)
def madpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_score: Tensor,
    rejected_score: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    c_min: Positive = 0.5,
    c_max: Positive = 2.0,
    steepness: Positive = 1.0,
    tau: Number = MADPO_TAU,
) -> Tensor:
    r"""Compare the pair as DPO does, more where a reward model finds it hard and less where it finds it easy.

    .. math:: \ell = -w(h) \log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big), \qquad
              w(h) = \frac{\sigma(c(|h|)\, h)}{\sigma(h)} \;\text{ for } h > -\tau, \text{ else } 1

    with :math:`c(m) = c_- + (c_+ - c_-) / \big(1 + \frac{c_+ - 1}{1 - c_-}\, e^{\lambda (m - \tau)}\big)`.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_score: (B,) reward of the chosen sample from a frozen model; h above is the difference of the two, the
            logit with which it prefers the chosen one. No gradient.
        rejected_score: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        c_min: :math:`c_-` above, below 1: amplification of the easiest pairs.
        c_max: :math:`c_+` above, over 1: amplification of the hardest ones. With ``c_min = c_max = 1`` this is `dpo`.
        steepness: lambda above.
        tau: the margin at which the weight is 1. With the authors' value, ln 999, nearly all pairs count as hard.

    Returns:
        (B,) positive losses, unreduced; the mean divides by the number of pairs, not by the weights.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: 1 is not between ``c_min`` and ``c_max``.

    Source: Margin Adaptive DPO, 2025; code: sirano1004/Margin-Apative-Direct-Preference-Optimization ``MADPOLoss``.
    Reduces to: `dpo` at ``c_min = c_max = 1``, and where h is 0 or tau.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> scores = {"chosen_score": torch.tensor([0.8]), "rejected_score": torch.tensor([0.0])}
    >>> round(madpo(**ratios, **scores, tau=2.0).item(), 5)
    0.69359
    """
    weights = madpo_weights(
        chosen_score=chosen_score,
        rejected_score=rejected_score,
        c_min=c_min,
        c_max=c_max,
        steepness=steepness,
        tau=tau,
    )
    return weights * logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "sem_dpo",
    kind="pairwise",
    source="Sem-DPO: Mitigating Semantic Inconsistency in Preference Optimization for Prompt Engineering,"
    " arXiv:2507.20133",
    evidence="secondary",
    aliases=("semantic_dpo",),
)
def sem_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_similarity: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = 1.0,
) -> Tensor:
    r"""Compare the pair as DPO does, the less the further the winner drifted in meaning from the prompt.

    .. math:: \ell = -e^{-\alpha (1 - \cos(e(x), e(y_w)))} \log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_similarity: (B,) cosine of frozen embeddings of the prompt and the chosen sample, in [-1, 1].
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        alpha: strength; the authors' value was not found.

    Returns:
        (B,) positive losses, unreduced; the weights are not normalised over the batch.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Sem-DPO, 2025; the weight from notes on it.
    Reduces to: `dpo` at alpha=0, and where winner and prompt mean the same.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(sem_dpo(**ratios, chosen_similarity=torch.tensor([0.9])).item(), 6)
    0.570281
    """
    weights = sem_dpo_weights(chosen_similarity=chosen_similarity, alpha=alpha)
    return weights * logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)

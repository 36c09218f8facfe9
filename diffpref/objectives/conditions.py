"""Pairs whose two sides differ in what the model was shown: a clean or an augmented clip, a seen or a hidden image."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Positive, Probability, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["bdhs", "vdpo"]


@objective(
    "vdpo",
    kind="pairwise",
    source="Ding et al., PaMi-VDPO: Mitigating Video Hallucinations by Prompt-Aware Multi-Instance Video Preference"
    " Learning, arXiv:2504.05810",
    evidence="secondary",
    aliases=("pami_vdpo", "contrastive_condition_dpo"),
)
def vdpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    weight: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Make an answer more likely on the clip that it is about than on an augmented copy of it.

    .. math:: \ell = -w \log\sigma\big(\beta\,(\Delta(y | v) - \Delta(y | \tilde v))\big)

    The same answer on both sides; the conditions differ. With a corrupted image, or with a wrong caption of one image,
    it is the same loss.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the answer given the clean condition.
        rejected_log_ratio: (B,) the same given the augmented condition.
        preference: (B,) P(the clean condition fits better) in [0, 1]; 1 where the batch has no such column. No
            gradient.
        weight: (B,) w above, less for augmentations that may not matter; 1 where the batch has no such column. The mean
            of the losses is not divided by it. No gradient.
        beta: as in `dpo`.

    Returns:
        (B,) non-negative losses, unreduced; the weight times ln 2 where the two sides agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Ding et al., PaMi-VDPO, 2025, reconstructed from its abstract; how clips are selected is the method's.
    Reduces to: `dpo` without weights.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(vdpo(**ratios, weight=torch.tensor([0.5]), beta=0.1).item(), 6)
    0.315129
    """
    losses = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    return losses if weight is None else weight * losses


@objective(
    "bdhs",
    kind="pairwise",
    source="Amirloo et al., Understanding Alignment in Multimodal LLMs: A Comprehensive Study, arXiv:2407.02477",
    evidence="paper",
    aliases=("mixed_dpo", "povid"),
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "online_log_ratio": "+"},
)
def bdhs(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    online_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    gamma: Probability = 0.5,
) -> Tensor:
    r"""Prefer an answer to two others: one that was given, and one that the policy makes when most of the image is hid.

    .. math:: \ell = -\gamma \log\sigma(\beta\,(\Delta_w - \Delta_l)) - (1 - \gamma) \log\sigma(\beta\,(\Delta_w -
              \Delta_{\tilde l}))

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the good answer.
        rejected_log_ratio: (B,) the same for the rejected answer of the data.
        online_log_ratio: (B,) the same for the second one: made by the policy with hidden image tokens, or the answer
            under a distorted image (POVID).
        beta: as in `dpo`.
        gamma: share of the first pair; 0.5 in POVID's variant, and assumed in Mixed-DPO (offline and online pair).

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Amirloo et al., 2024, sections 3.3 and 3.4. Its plain variant is `dpo` on pairs with a generated rejected.
    Reduces to: `dpo` at ``gamma: 1``.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(bdhs(**ratios, online_log_ratio=torch.tensor([0.5]), beta=0.1).item(), 6)
    0.661703
    """
    given = logsigmoid(beta * (chosen_log_ratio - rejected_log_ratio))
    made = logsigmoid(beta * (chosen_log_ratio - online_log_ratio))
    return -gamma * given - (1 - gamma) * made

"""Preferences over prompts and responses together: different prompts compared (DOVE), prompts that a response fits
better or worse (MAPL).
"""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["dove", "mapl", "mapl_intra"]


@objective(
    "dove",
    kind="pairwise",
    source="Bansal et al., Comparing Bad Apples to Good Oranges: Aligning LLMs via Joint Preference Optimization,"
    " arXiv:2404.00530",
    evidence="official",
    same_as="dpo",
    aliases=("joint_preference_optimization",),
)
def dove(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Compare two prompts with their responses: `dpo` where each side is conditional on its own prompt.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta(y_w \mid x_w) - \Delta(y_l \mid x_l))\big)

    The probabilities of the prompts themselves cancel between policy and reference. A constant of a prompt does not
    cancel between the sides, as it does for one prompt: rewards of different prompts are compared.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen response, given its prompt.
        rejected_log_ratio: (B,) the same for the rejected response, given its own.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Bansal et al., Joint Preference Optimization, 2024; code: Hritikbansal/dove ``custom_dove_trainer.py``.
    Reduces to: `dpo` where both prompts are one.

    >>> import torch
    >>> loss = dove(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.630258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "mapl_intra",
    kind="pairwise",
    source="Multi-level Aware Preference Learning, arXiv:2505.12845",
    evidence="secondary",
    signs={"chosen_log_ratio": "-", "mismatched_log_ratio": "+"},
    same_as="dpo",
)
def mapl_intra(
    *,
    chosen_log_ratio: Tensor,
    mismatched_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Tell which of two prompts a response satisfies: `dove` with one response.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta(y \mid x_w) - \Delta(y \mid x_l))\big)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the response, given the prompt that it
            satisfies.
        mismatched_log_ratio: (B,) the same for the same response, given a prompt with an instruction that it breaks.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Multi-level Aware Preference Learning, 2025; equations as quoted in a review, here with implicit rewards.
    Reduces to: `dove` with equal responses.

    >>> import torch
    >>> loss = mapl_intra(chosen_log_ratio=torch.tensor([1.0]), mismatched_log_ratio=torch.tensor([-0.5]))
    >>> round(loss.item(), 6)
    0.620957
    """
    return logistic(beta * (chosen_log_ratio - mismatched_log_ratio))


@objective(
    "mapl",
    kind="pairwise",
    source="Multi-level Aware Preference Learning, arXiv:2505.12845",
    evidence="secondary",
    coupling="batch",
    signs={"mismatched_log_ratio": "+"},
)
def mapl(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    mismatched_log_ratio: Tensor,
    chosen_score: Tensor,
    rejected_score: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    intra_weight: NonNegative = 1.0,
    inter_weight: NonNegative = 1.0,
) -> Tensor:
    r"""Compare responses as DPO does, prompts for one response, and pairs by how far apart they are.

    .. math:: \ell_i = -\log\sigma(z_i) - \mu_1 \log\sigma\big(\beta\,(\Delta(y_w \mid x) - \Delta(y_w \mid x'))\big)
              - \frac{\mu_2}{|A_i|} \sum_{j \in A_i} \log\sigma(z_i - z_j), \qquad z = \beta\,(\Delta_w - \Delta_l)

    where :math:`A_i` holds the pairs of the batch with a smaller difference of scores than pair i.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        mismatched_log_ratio: (B,) the same for the chosen response, given a prompt that it does not satisfy.
        chosen_score: (B,) score of the chosen sample, such as how many instructions it satisfies. No gradient.
        rejected_score: (B,) the same for the rejected sample.
        beta: as of `dpo`.
        intra_weight: mu_1 above.
        inter_weight: mu_2 above; a pair with no smaller one in the batch has no such term.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Multi-level Aware Preference Learning, 2025; equations as quoted in a review. The comparison between pairs
    and the weights are inferred.
    Reduces to: `dpo` with both weights 0.

    >>> import torch
    >>> values = {"chosen": 1.0, "rejected": 0.0, "mismatched": -0.5}
    >>> ratios = {f"{group}_log_ratio": torch.tensor([value]) for group, value in values.items()}
    >>> scores = {"chosen_score": torch.tensor([3.0]), "rejected_score": torch.tensor([1.0])}
    >>> round(mapl(**ratios, **scores).item(), 6)
    1.265354
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    intra = logistic(beta * (chosen_log_ratio - mismatched_log_ratio))
    gap = chosen_score - rejected_score
    larger = (gap.unsqueeze(1) > gap.unsqueeze(0)).to(margin.dtype)
    inter = (larger * logistic(margin.unsqueeze(1) - margin.unsqueeze(0))).sum(dim=1) / larger.sum(dim=1).clamp(min=1)
    return logistic(margin) + intra_weight * intra + inter_weight * inter

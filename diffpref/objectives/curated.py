"""Retraining on what a curator picks: the expected likelihood of the best of K own samples."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.annotations import Positive
from diffpref.objectives.base import objective
from diffpref.objectives.lists import filled, there

__all__ = ["curated_retraining"]


@objective(
    "curated_retraining",
    kind="listwise",
    source="Ferbach et al., Self-Consuming Generative Models with Curated Data Provably Optimize Human Preferences,"
    " arXiv:2407.09499",
    evidence="memory",
    published=("denoising",),
    signs={"policy_list_logps": "-"},
)
def curated_retraining(
    *, policy_list_logps: Tensor, list_scores: Tensor, list_mask: Tensor | None = None, temperature: Positive = 1.0
) -> Tensor:
    r"""Imitate the one of K own samples that a user picks, in expectation over the user.

    .. math:: \ell = -\sum_k q_k \log \pi_\theta(x_k), \qquad q = \mathrm{softmax}(r / \tau)

    The paper keeps one sample drawn from q; this is the mean of that loss over the draw, with less noise. On data that
    hold the drawn sample alone it is `nll`. Without real data among the prompts the model collapses onto the best.

    Args:
        policy_list_logps: (B, K) log-likelihood of each sample under the policy.
        list_scores: (B, K) rewards r. No gradient.
        list_mask: (B, K) 1 where there is a sample; everywhere where the batch has no such column.
        temperature: tau above; towards 0 the best of K is imitated. 1 is the paper's Luce choice.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape, or a list has fewer than two candidates.

    Source: Ferbach et al., NeurIPS 2024. `diffpref.ranking.curated_distribution` is its limit of infinite data.
    Reduces to: `nll` of the best sample as the temperature falls; the mean `nll` where all scores are equal.

    >>> import torch
    >>> loss = curated_retraining(policy_list_logps=torch.tensor([[-1.0, -3.0]]), list_scores=torch.zeros(1, 2))
    >>> loss.item()
    2.0
    """
    present = there("curated_retraining", list_scores, list_mask)
    picked = filled(list_scores / temperature, present, -torch.inf).softmax(dim=1)
    return -(picked * filled(policy_list_logps, present)).sum(dim=1)

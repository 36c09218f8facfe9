"""Self-supervised Preference Optimization: know how much of a response's content is missing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from diffpref.core.errors import ShapeError
from diffpref.objectives.base import objective

__all__ = ["spo_degree"]


@objective(
    "spo_degree",
    kind="supervised",
    source="Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness,"
    " arXiv:2409.17791",
    evidence="memory",
    signs={},
)
def spo_degree(*, policy_list_logits: Tensor, list_label: Tensor, list_mask: Tensor | None = None) -> Tensor:
    r"""Classify variants of a response by the share of its key content that was removed.

    .. math:: \ell = -\frac{1}{V} \sum_v \log \mathrm{softmax}\big(g(h(x, \tilde y_v))\big)_{k_v}

    It is the term to add to any alignment loss: ``[dpo, {spo_degree: {coefficient: 0.1}}]``.

    Args:
        policy_list_logits: (B, V, K) what a linear head says of the policy's last hidden state of each variant, for K
            degrees.
        list_label: (B, V) the degree removed, 0 ... K - 1: class k means that k / (K - 1) of the key content is gone.
        list_mask: (B, V) 1 where there is a variant; all where the batch has no such column.

    Returns:
        (B,) positive losses, unreduced; log K for a head that says nothing.

    Raises:
        ShapeError: logits are not (B, V, K).

    Source: Self-supervised Preference Optimization, EMNLP Findings 2024, from the abstract; the mechanism is inferred.
    Reduces to: cross-entropy.

    >>> import torch
    >>> loss = spo_degree(policy_list_logits=torch.zeros(1, 3, 4), list_label=torch.tensor([[0.0, 1.0, 3.0]]))
    >>> round(loss.item(), 6)
    1.386294
    """
    if policy_list_logits.dim() != 3 or policy_list_logits.shape[:2] != list_label.shape:
        raise ShapeError(
            f"objective 'spo_degree': policy_list_logits has shape {tuple(policy_list_logits.shape)}; expected"
            f" {(*list_label.shape, 'degrees')}"
        )
    there = torch.ones_like(list_label) if list_mask is None else (list_mask > 0).to(policy_list_logits.dtype)
    logits = torch.where(there.unsqueeze(2) > 0, policy_list_logits, 0.0)
    label = torch.where(there > 0, list_label, 0.0).long()
    said = log_softmax(logits, dim=2).gather(2, label.unsqueeze(2)).squeeze(2)
    return -(there * said).sum(dim=1) / there.sum(dim=1)

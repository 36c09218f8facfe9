"""In-context ranking: the items of one generated list, each against all others, weighted by relevance and place."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lists import both, check_within, filled, pairs_of, per_length, there

__all__ = ["irpo_ranking"]

GRADES = 10.0
"""The highest grade: gains are powers of two."""


@objective(
    "irpo_ranking",
    kind="listwise",
    source="Wu et al., In-context Ranking Preference Optimization, arXiv:2504.15477; its trainers.py rdpo_loss",
    evidence="official",
    aliases=("irpo_rank",),
    signs={},
    domain={"list_scores": (0.0, GRADES)},
)
def irpo_ranking(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    ranks: Tensor,
    list_length: Tensor | None = None,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=1.0, denoising=50000.0),
    gain: Literal["ndcg", "place", "linear"] = "ndcg",
    normalize: bool = True,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Let every relevant item beat all others together, the more so the more relevant and the higher its place.

    .. math:: \ell = -\frac1K \sum_i w_i \log\sigma(z_i), \qquad w_i = \frac{2^{y_i} - 1}{\log_2(1 + \text{pos}_i)},
              \qquad z_i = -\log \frac{1}{K - 1} \sum_{j \ne i} e^{\beta (r_j - r_i)}

    Args:
        list_log_ratio: (B, K) policy minus reference log-likelihood of each item's tokens.
        list_scores: (B, K) grades of relevance y, from 0 (only a rival) to 10. No gradient.
        ranks: (B, K) place of each item in the wanted order, 0 = first: pos - 1. No gradient.
        list_length: (B, K) tokens of each item; needed with ``length_normalize``. No gradient.
        list_mask: (B, K) 1 where an item is there; all where the batch has no such column.
        beta: inverse temperature.
        gain: w above; ``"place"``: 1 / log2(1 + pos); ``"linear"``: (2^y - 1) / pos.
        normalize: the released code's means; else the paper's sums: ``z_i = -log sum_j exp(beta (r_j - r_i))`` over all
            j, and no 1 / K.
        length_normalize: r is the log-ratio divided by the item's length, as in the released code.

    Returns:
        (B,) non-negative losses, unreduced. The code sums them over the batch, here they are averaged like all others.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two items.
        ConfigError: grades out of range, or ``length_normalize`` without lengths.

    Source: Wu et al., In-context Ranking Preference Optimization, COLM 2025; constants follow the released code, which
    leaves out j = i by adding -100 in the exponent. The paper's form is from memory.
    Reduces to: half of `dpo` for two items of grades 1 and 0 at places 1 and 2.

    >>> import torch
    >>> ratios, grades = torch.tensor([[0.8, -0.5, 1.5]]), torch.tensor([[2.0, 0.0, 1.0]])
    >>> items = {"list_log_ratio": ratios, "list_scores": grades, "ranks": torch.tensor([[0, 1, 2]])}
    >>> round(irpo_ranking(**items, length_normalize=False).item(), 6)
    0.808034
    """
    present = there("irpo_ranking", list_scores, list_mask)
    grades = filled(list_scores, present)
    hint = "bring relevance to such grades"
    check_within("irpo_ranking", "list_scores", grades, 0.0, GRADES, hint)
    place = filled(ranks.to(grades.dtype), present) + 1
    weight = 1 / (place if gain == "linear" else torch.log2(1 + place))
    if gain != "place":
        weight = weight * (torch.exp2(grades) - 1)
    ratios = per_length("irpo_ranking", length_normalize, list_log_ratio, list_length, present)
    ahead = -beta * pairs_of(filled(ratios, present))  # row i, column j: beta * (r_j - r_i)
    rivals = both(present)
    if normalize:
        rivals = rivals & ~torch.eye(grades.shape[1], dtype=torch.bool, device=grades.device)
    # Rows of absent items keep what is finite; they are left out below.
    total = filled(ahead, rivals | ~present.unsqueeze(2), -math.inf).logsumexp(dim=2)
    size = present.sum(dim=1, keepdim=True).to(grades.dtype)
    if normalize:
        return filled(weight * softplus(total - torch.log(size - 1)), present).sum(dim=1) / size.squeeze(1)
    return filled(weight * softplus(total), present).sum(dim=1)

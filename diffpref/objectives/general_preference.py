"""General preference model: embeddings whose rotation says which of two samples is better, cycles included."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import Number, Positive
from diffpref.core.errors import ShapeError
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["gpm", "preference_score"]


def preference_score(first: Tensor, second: Tensor) -> Tensor:
    """Return (...,) the score of first over second: ``sum_d first[2d] * second[2d + 1] - first[2d + 1] * second[2d]``.

    It is antisymmetric, 0 of a sample against itself, and unchanged when all blocks of two turn alike.

    Args:
        first: (..., 2D) embeddings.
        second: the same shape, or one that broadcasts.

    Raises:
        ShapeError: an odd number of features.
    """
    if first.shape[-1] % 2:
        raise ShapeError(f"a preference embedding has an even number of features, got {first.shape[-1]}")
    return (first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]).sum(dim=-1)


@objective(
    "gpm",
    kind="pairwise",
    source="Zhang et al., arXiv:2410.02197, eq. 6; general-preference-model models/loss.py",
    evidence="official",
    signs={},
)
def gpm(
    *,
    policy_chosen_embedding: Tensor,
    policy_rejected_embedding: Tensor,
    preference: Tensor | None = None,
    temperature: Positive = 0.1,
    margin: Number = 0.0,
    normalize: bool = True,
    link: Literal["logistic", "square"] = "logistic",
) -> Tensor:
    r"""Train embeddings of a reward model so that the chosen sample beats the rejected one.

    .. math:: \ell = -\log\sigma\Big(\frac{s - m}{\tau}\Big), \qquad
              s = \sum_d v_w^{2d} v_l^{2d+1} - v_w^{2d+1} v_l^{2d}

    A prompt's own scale of each block of two, where a model has one, is the head's business: the square root of it goes
    into both embeddings.

    Args:
        policy_chosen_embedding: (B, 2D) embedding of the chosen sample.
        policy_rejected_embedding: (B, 2D) the same of the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        temperature: tau; 0.1 in the paper, 1 in its Bradley-Terry comparisons.
        margin: m, in units of the score.
        normalize: bring embeddings to length 1 first, as the paper describes; the released code has it commented out.
        link: ``"square"`` regresses ``s / tau`` onto 10, with a factor 1/2.

    Returns:
        (B,) non-negative losses, unreduced; ln 2 where the two embeddings are equal.

    Raises:
        ShapeError: the tensors differ in shape, or have an odd number of features.

    Source: Zhang et al., General Preference Modeling with Preference Representations, ICML 2025; constants follow the
    official code. Its regulariser of the language model is another term: compose with `nll`.
    Reduces to: Bradley-Terry for embeddings (r, 1), whose scores are differences of r.

    >>> import torch
    >>> one = {"policy_chosen_embedding": torch.tensor([[3.0, 1.0]]), "policy_rejected_embedding": torch.ones(1, 2)}
    >>> round(gpm(**one, temperature=1.0, normalize=False).item(), 6)  # -log sigmoid(3 - 1)
    0.126928
    """
    chosen, rejected = policy_chosen_embedding, policy_rejected_embedding
    if normalize:
        chosen = torch.nn.functional.normalize(chosen, dim=1)
        rejected = torch.nn.functional.normalize(rejected, dim=1)
    score = preference_score(chosen, rejected)
    if link == "logistic":
        return logistic((score - margin) / temperature, preference)
    wanted = 10.0 if preference is None else 10.0 * (2 * preference - 1)
    return 0.5 * (score / temperature - wanted).square()

"""Pairs and lists of reasoning steps: labels from a search tree's visits, weights from the likeness of steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.lambda_rank import lambda_loss
from diffpref.objectives.lipo import unit_labels
from diffpref.objectives.lists import filled, there
from diffpref.objectives.pair_links import logistic

__all__ = ["mcts_dpo", "step_scores", "tpo_tree"]

LEAST = 1e-6
"""Weight of a step that is the best path's own, where those are to be ignored: all alike are a plain mean."""


@objective(
    "mcts_dpo",
    kind="pairwise",
    source="Xie et al., arXiv:2405.00451, eq. 5; YuxiXie/MCTS-DPO algorithms/mcts/trainer.py",
    evidence="official",
)
def mcts_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_visits: Tensor,
    rejected_visits: Tensor,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    conservative: bool = True,
    link: Literal["logistic", "square"] = "logistic",
    length_penalty: NonNegative = 1.0,
) -> Tensor:
    r"""Classify the better of two steps, as surely as the search preferred it.

    .. math:: \ell = -(1 - \epsilon) \log\sigma(m) - \epsilon \log\sigma(-m), \qquad m = \beta\,(\Delta_w - \Delta_l),
              \qquad \epsilon = \min\Big(1 - \frac{1}{1 + N_l / \max(1, N_w)},\; \tfrac12\Big)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the better continuation, from where the two
            part: the prefix that they share belongs to the prompt. (Summed over whole sequences it cancels out.)
        rejected_log_ratio: (B,) the same for the worse continuation.
        chosen_visits: (B,) N, how often the search visited the better continuation. No gradient.
        rejected_visits: (B,) the same for the worse one.
        chosen_length: (B,) tokens of the better continuation; needed with ``link="square"``. No gradient.
        rejected_length: (B,) the same for the worse one.
        beta: inverse temperature.
        conservative: smooth labels by visits; else epsilon is 0.
        link: ``"square"``: ``(Delta_w / n_w^p - Delta_l / n_l^p - 1 / (2 beta))^2``, IPO on normalised log-ratios,
            which reads no visits.
        length_penalty: p of the square link; 0 for sums.

    Returns:
        (B,) positive losses, unreduced. Where the worse continuation was visited as often, the least lies at margin 0.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``link="square"`` without lengths.

    Source: Xie et al., Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning, 2024; constants
    follow the official code.
    Reduces to: `dpo` with preference ``1 - epsilon``; plain `dpo` where the worse continuation was never visited.

    >>> import torch
    >>> pair = {"chosen_log_ratio": torch.tensor([1.5]), "rejected_log_ratio": torch.tensor([-0.5])}
    >>> visits = {"chosen_visits": torch.tensor([12.0]), "rejected_visits": torch.tensor([4.0])}
    >>> round(mcts_dpo(**pair, **visits, beta=0.1).item(), 6)
    0.648139
    """
    if link == "square":
        if chosen_length is None or rejected_length is None:
            raise ConfigError("mcts_dpo: link=square needs the columns chosen_length and rejected_length")
        chosen = chosen_log_ratio / chosen_length**length_penalty
        rejected = rejected_log_ratio / rejected_length**length_penalty
        return (chosen - rejected - 1 / (2 * beta)).square()
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    if not conservative:
        return logistic(margin)
    confidence = 1 / (1 + rejected_visits / chosen_visits.clamp(min=1))
    return logistic(margin, confidence.clamp(min=0.5))


def step_scores(
    ratios: Tensor, embeddings: Tensor, best: Tensor, mask: Tensor, weights: Literal["similarity", "dissimilarity"]
) -> Tensor:
    """Return (B, K) means of the steps' log-ratios, weighted by the likeness to the best path's step of same number.

    Args:
        ratios: (B, K, S) mean log-ratio of each step.
        embeddings: (B, K, S, D) of each step; no gradient flows into them.
        best: (B,) which candidate is the best path; its own steps weigh alike.
        mask: (B, K, S) booleans: where a step is. A step that the best path has not is neither like nor unlike.
        weights: ``1 + cos`` or ``1 - cos``.
    """
    vectors = filled(embeddings.detach(), mask.unsqueeze(3))
    index = best.view(-1, 1, 1, 1).expand(-1, 1, *vectors.shape[2:])
    likeness = cosine_similarity(vectors, vectors.gather(1, index), dim=3)
    weight = 1 + likeness if weights == "similarity" else (1 - likeness).clamp(min=LEAST)
    own = torch.nn.functional.one_hot(best, mask.shape[1]).bool().unsqueeze(2)
    weight = filled(torch.where(own, torch.ones_like(weight), weight), mask)
    return (weight * filled(ratios, mask)).sum(dim=2) / weight.sum(dim=2).clamp(min=LEAST)


@objective(
    "tpo_tree",
    kind="listwise",
    source="Liao et al., arXiv:2410.12854; MrBlankness/TPO loss.py",
    evidence="memory",
    signs={},
    stops=("policy_list_segment_embedding",),
)
def tpo_tree(
    *,
    list_segment_log_ratio: Tensor,
    policy_list_segment_embedding: Tensor,
    list_segment_mask: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    beta: Positive = scale(tokens=0.5, denoising=25000.0),
    weights: Literal["similarity", "dissimilarity"] = "similarity",
) -> Tensor:
    r"""Rank whole reasoning paths, each step weighing by how it resembles the best path's step of the same number.

    .. math:: \ell = \sum_{\psi_i > \psi_j} \Delta_{ij} \log\big(1 + e^{-(s_i - s_j)}\big), \qquad
              s_k = \beta\, \frac{\sum_s w_{k,s} u_{k,s}}{\sum_s w_{k,s}}, \qquad w_{k,s} = 1 + \cos(e_{k,s}, e_{1,s})

    with the weights Delta of `lipo_lambda` and candidate 1 the best-scored.

    Args:
        list_segment_log_ratio: (B, K, S) u, policy minus reference log-likelihood of each step, a mean over its units.
        policy_list_segment_embedding: (B, K, S, D) e, mean hidden state of each step. A constant: no gradient.
        list_segment_mask: (B, K, S) 1 where a step is there.
        list_scores: (B, K) of each path, larger is better, in any unit: each list is brought to [0, 1]. No gradient.
        list_mask: (B, K) 1 where a path is there; all where the batch has no such column.
        beta: inverse temperature.
        weights: ``"similarity"`` as in the released code; ``"dissimilarity"``: 1 - cos, so that steps shared with the
            best path are ignored. Which of them the paper means is not settled.

    Returns:
        (B,) non-negative losses, unreduced: sums over pairs.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two paths.

    Source: Liao et al., TPO: Aligning Large Language Models with Multi-branch and Multi-step Preference Trees, ICLR
    2025. The released loss rises as the ranking improves and reads every token at one place; this is what it is meant
    to be, with LiPO's list loss. Not Triple Preference Optimization (`tpo_triple`).
    Reduces to: `lipo_lambda` on log-ratios divided by length, for paths of one step.

    >>> import torch
    >>> steps = {"list_segment_log_ratio": torch.tensor([[[0.4], [-0.1]]]), "list_segment_mask": torch.ones(1, 2, 1)}
    >>> paths = {"policy_list_segment_embedding": torch.ones(1, 2, 1, 2), "list_scores": torch.tensor([[100.0, 20.0]])}
    >>> round(tpo_tree(**steps, **paths, beta=1.0).item(), 6)
    0.252425
    """
    present = there("tpo_tree", list_scores, list_mask)
    psi = unit_labels("tpo_tree", list_scores, present, "minmax")
    steps = (list_segment_mask > 0) & present.unsqueeze(2)
    best = filled(list_scores, present, -torch.inf).argmax(dim=1)
    scores = step_scores(list_segment_log_ratio, policy_list_segment_embedding, best, steps, weights)
    return lambda_loss(beta * scores, psi, present)

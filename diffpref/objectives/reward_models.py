"""Losses of reward models: Bradley-Terry with its margins and ties, regression, and whole rankings of scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Number, Positive, PositiveInt
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.lists import filled, there
from diffpref.objectives.pair_links import expected
from diffpref.objectives.ranked_lists import plackett_luce

__all__ = ["bradley_terry", "bradley_terry_ties", "reward_plackett_luce", "reward_regression", "tie_cost"]


@objective(
    "bradley_terry",
    kind="pairwise",
    source="Ouyang et al., arXiv:2203.02155, eq. 1; TRL RewardTrainer; Wang et al., arXiv:2401.06080",
    evidence="official",
    aliases=("reward_modeling",),
    signs={"policy_chosen_score": "-", "policy_rejected_score": "+"},
)
def bradley_terry(
    *,
    policy_chosen_score: Tensor,
    policy_rejected_score: Tensor,
    preference: Tensor | None = None,
    chosen_score: Tensor | None = None,
    rejected_score: Tensor | None = None,
    temperature: Positive = 1.0,
    margin: Number = 0.0,
    margin_scale: NonNegative = 0.0,
    centering: NonNegative = 0.0,
    floor: NonNegative = 0.0,
) -> Tensor:
    r"""Train a reward model so that the better of two samples scores higher.

    .. math:: \ell = -\log\big(\sigma\big(\tfrac{r_w - r_l - m}{\tau}\big) + f\big) + c\,(r_w + r_l)^2

    Args:
        policy_chosen_score: (B,) r, score of the chosen sample by the model in training.
        policy_rejected_score: (B,) the same of the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_score: (B,) how good the chosen sample is by what labelled it; needed with ``margin_scale``. No gradient.
        rejected_score: (B,) the same of the rejected sample.
        temperature: tau above.
        margin: m above, of every pair; 0.57 in VideoAlign's and HPS v3's ``constant_margin``.
        margin_scale: to the margin this is added, times ``chosen_score - rejected_score``: a mean difference over
            several reward models makes the margin adaptive.
        centering: c above; scores differ from each other alone, this keeps their sum near 0. 0.01 in TRL's examples.
        floor: f above; 1e-5 in MOSS-RLHF, so that no pair costs more than 11.5.

    Returns:
        (B,) losses, unreduced; ln 2 where the two score alike.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``margin_scale`` without scores.

    Source: Ouyang et al., InstructGPT, NeurIPS 2022, eq. 1; margin and centering follow TRL's RewardTrainer, the floor
    the code of Secrets of RLHF II.
    Reduces to: `dpo` with implicit rewards for scores and beta = 1 / temperature.

    >>> import torch
    >>> one = {"policy_chosen_score": torch.tensor([1.2]), "policy_rejected_score": torch.tensor([0.7])}
    >>> told = {"chosen_score": torch.tensor([0.3]), "rejected_score": torch.tensor([0.0])}
    >>> round(bradley_terry(**one, **told, margin_scale=1.0).item(), 6)
    0.598139
    """
    gap: Tensor | float = margin
    if margin_scale:
        if chosen_score is None or rejected_score is None:
            raise ConfigError("bradley_terry: margin_scale needs the columns chosen_score and rejected_score")
        gap = margin + margin_scale * (chosen_score - rejected_score)

    def loss(better: Tensor, worse: Tensor) -> Tensor:
        likely = logsigmoid((better - worse - gap) / temperature)
        return -torch.logaddexp(likely, torch.full_like(likely, math.log(floor))) if floor else -likely

    compared = expected(loss, preference, policy_chosen_score, policy_rejected_score)
    return compared + centering * (policy_chosen_score + policy_rejected_score).square()


@objective(
    "bradley_terry_ties",
    kind="pairwise",
    source="Rao and Kupper, Ties in paired-comparison experiments, JASA 1967",
    evidence="memory",
    aliases=("rao_kupper",),
    signs={"policy_chosen_score": "-", "policy_rejected_score": "+"},
)
def bradley_terry_ties(
    *,
    policy_chosen_score: Tensor,
    policy_rejected_score: Tensor,
    preference: Tensor | None = None,
    threshold: Positive = 0.5,
) -> Tensor:
    r"""Train a reward model for which two samples of nearly equal score are a tie.

    .. math:: P(w \succ l) = \sigma(d - \eta), \quad P(l \succ w) = \sigma(-d - \eta), \quad
              P(\text{tie}) = (e^{2\eta} - 1)\, \sigma(d - \eta)\, \sigma(-d - \eta), \qquad d = r_w - r_l

    Args:
        policy_chosen_score: (B,) r, score of the chosen sample by the model in training.
        policy_rejected_score: (B,) the same of the rejected sample.
        preference: (B,) P(chosen is better): 1/2 is a tie, 1 a win, 0 a loss, and what lies between a tie with the rest
            of the probability; 1 where the batch has no such column. No gradient.
        threshold: eta above; larger makes ties likelier.

    Returns:
        (B,) positive losses, unreduced: the cross-entropy of win, tie and loss. A tie costs least at equal scores.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Rao and Kupper, 1967, on log-strengths. How a soft label is split is ours.
    Reduces to: `bradley_terry` with a constant margin for certain wins.

    >>> import torch
    >>> one = {"policy_chosen_score": torch.tensor([1.2]), "policy_rejected_score": torch.tensor([0.7])}
    >>> round(bradley_terry_ties(**one, threshold=0.3).item(), 6)
    0.598139
    """
    difference = policy_chosen_score - policy_rejected_score
    win, loss = -logsigmoid(difference - threshold), -logsigmoid(-difference - threshold)
    if preference is None:
        return win
    won, lost = (2 * preference - 1).clamp(min=0), (1 - 2 * preference).clamp(min=0)
    return won * win + lost * loss + (1 - won - lost) * tie_cost(difference, threshold)


def tie_cost(difference: Tensor, threshold: float) -> Tensor:
    """Return minus the log of Rao and Kupper's probability of a tie.

    Args:
        difference: of two scores.
        threshold: eta > 0, half the width of ties.
    """
    both = logsigmoid(difference - threshold) + logsigmoid(-difference - threshold)
    return -both - math.log(math.expm1(2 * threshold))


@objective(
    "reward_regression",
    kind="pointwise",
    source="regression of a reward model onto scores, as in Wang et al., HelpSteer, arXiv:2311.09528",
    evidence="memory",
    signs={},
)
def reward_regression(*, policy_score: Tensor, score: Tensor) -> Tensor:
    r"""Train a reward model to give the scores that the data hold.

    .. math:: \ell = (r - y)^2

    Args:
        policy_score: (B,) r, score of a sample by the model in training.
        score: (B,) y, what the data say. No gradient.

    Returns:
        (B,) non-negative losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: least squares.
    Reduces to: itself; there is nothing simpler.

    >>> import torch
    >>> reward_regression(policy_score=torch.tensor([1.5]), score=torch.tensor([1.0])).item()
    0.25
    """
    return (policy_score - score).square()


@objective(
    "reward_plackett_luce",
    kind="listwise",
    source="Xia et al., Listwise Approach to Learning to Rank (ListMLE), ICML 2008",
    evidence="memory",
    signs={},
)
def reward_plackett_luce(
    *,
    policy_list_score: Tensor,
    ranks: Tensor,
    list_mask: Tensor | None = None,
    top: PositiveInt | None = None,
) -> Tensor:
    r"""Train a reward model so that its scores make the whole ranking likely.

    .. math:: \ell = -\sum_{k=1}^{K-1} \Big[ r_{(k)} - \log \sum_{j \ge k} e^{r_{(j)}} \Big]

    Args:
        policy_list_score: (B, K) r, score of each candidate by the model in training.
        ranks: (B, K) 0 = best; equal ranks are taken in the order of the list. No gradient.
        list_mask: (B, K) 1 where a candidate is there; all where the batch has no such column.
        top: only this many picks count; all where not given.

    Returns:
        (B,) non-negative losses, unreduced, not divided by K.

    Raises:
        ShapeError: tensors differ in shape, or a list has fewer than two candidates.

    Source: Xia et al., ICML 2008.
    Reduces to: `bradley_terry` for K = 2; `dpo_plackett_luce` with implicit rewards for scores.

    >>> import torch
    >>> scores, ranks = torch.tensor([[1.2, 0.7]]), torch.tensor([[0, 1]])
    >>> round(reward_plackett_luce(policy_list_score=scores, ranks=ranks).item(), 6)
    0.474077
    """
    present = there("reward_plackett_luce", ranks, list_mask)
    return plackett_luce(filled(policy_list_score, present), ranks, present, top)

"""Binary Classifier Optimization: each sample is classified by itself as desirable or not; also on pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Number, Positive, scale
from diffpref.core.contracts import Tensors, Terms
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected

__all__ = ["bco", "bco_pair", "bco_pair_running"]


def _no_rewards() -> dict[str, Tensor]:
    """The running mean before the first update, in float64, since a run adds up many small rewards."""
    return {"mean": torch.zeros((), dtype=torch.float64), "count": torch.zeros((), dtype=torch.float64)}


def _with_rewards(state: Tensors, rewards: Tensor) -> dict[str, Tensor]:
    """Return the mean of all rewards of the run, these included."""
    rewards = rewards.detach().double()
    count = state["count"] + len(rewards)
    return {"mean": state["mean"] + (rewards - state["mean"]).sum() / count, "count": count}


@objective(
    "bco",
    kind="pointwise",
    source="Jung et al., Binary Classifier Optimization for Large Language Model Alignment, arXiv:2404.04656",
    evidence="official",
    coupling="batch",
    init=_no_rewards,
    stops=("log_ratio",),
    signs={},
)
def bco(
    *,
    log_ratio: Tensor,
    label: Tensor,
    state: Tensors,
    weight: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    min_weight: Positive = 0.5,
    max_weight: Positive = 10.0,
) -> Terms:
    r"""Classify samples as desirable or not by their implicit rewards, compared with the mean reward of the run.

    .. math:: \ell = -y \log\sigma(r - \delta) - (1 - y)\,w \log\sigma(\delta - r), \qquad r = \beta\,\Delta

    :math:`\delta` is the mean of all rewards so far, this batch included, as a constant.

    Args:
        log_ratio: (B,) policy minus reference log-likelihood of each sample.
        label: (B,) y above: 1 desirable, 0 not; between them a probability. No gradient.
        state: ``mean`` and ``count`` of the rewards of the run.
        weight: (B,) p / (1 - p) with p the probability that an answer to this prompt is a desirable one, for prompts
            that differ between the two kinds (underlying distribution matching); 1 where the batch has no such column.
            It weights undesirable samples. No gradient.
        beta: 0.01 in the paper, 0.1 in TRL.
        min_weight: weights below are taken for it.
        max_weight: weights above are taken for it.

    Returns:
        `Terms` of (B,) positive losses, unreduced, with the new ``mean`` and ``count``; ln 2 where reward is mean.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Jung et al., BCO, 2024; code: TRL ``BCOTrainer.bco_loss``.
    Reduces to: logistic regression on the reward where the mean is 0.

    >>> import torch
    >>> terms = bco(log_ratio=torch.tensor([0.5, -1.0]), label=torch.tensor([1.0, 0.0]), beta=0.1)
    >>> round(terms.state["mean"].item(), 6)
    -0.025
    """
    rewards = beta * log_ratio
    state = _with_rewards(state, rewards)
    above = rewards - state["mean"].to(rewards.dtype)
    undesirable = (1 - label) if weight is None else (1 - label) * weight.clamp(min_weight, max_weight)
    return Terms(-label * logsigmoid(above) - undesirable * logsigmoid(-above), state=state)


@objective(
    "bco_pair",
    kind="pairwise",
    source="Jung et al., Binary Classifier Optimization for Large Language Model Alignment, arXiv:2404.04656",
    evidence="official",
    aliases=("bce", "biased_nca"),
)
def bco_pair(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    shift: Number = 0.0,
) -> Tensor:
    r"""Classify the chosen sample as desirable and the rejected one as not, each by itself.

    .. math:: \ell = -\log\sigma(r_w - \delta) - \log\sigma(\delta - r_l), \qquad r = \beta\,\Delta

    With soft labels the loss is the expectation over the label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `bco`.
        shift: delta above, in implicit-reward units; TRL has 0, and `bco_pair_running` the mean of the run.

    Returns:
        (B,) positive losses, unreduced; 2 ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Jung et al., BCO, 2024; code: TRL ``loss_type="bco_pair"``; thu-ml/Noise-Contrastive-Alignment calls it
    biased NCA.
    Reduces to: the sum of two logistic regressions.

    >>> import torch
    >>> loss = bco_pair(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    1.379805
    """
    return expected(
        lambda better, worse: -logsigmoid(beta * better - shift) - logsigmoid(shift - beta * worse),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )


@objective(
    "bco_pair_running",
    kind="pairwise",
    source="Jung et al., Binary Classifier Optimization for Large Language Model Alignment, arXiv:2404.04656",
    evidence="secondary",
    coupling="batch",
    init=_no_rewards,
    stops=("chosen_log_ratio", "rejected_log_ratio"),
)
def bco_pair_running(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    state: Tensors,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
) -> Terms:
    r"""`bco_pair` whose shift is the mean of all rewards of the run, of chosen and rejected samples together.

    .. math:: \ell = -\log\sigma(r_w - \delta) - \log\sigma(\delta - r_l), \qquad r = \beta\,\Delta

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        state: ``mean`` and ``count`` of the rewards of the run.
        preference: (B,) P(chosen is better) in [0, 1], over which the loss is the expectation; 1 where the batch has no
            such column. No gradient.
        beta: as of `bco`.

    Returns:
        `Terms` of (B,) positive losses, unreduced, with the new ``mean`` and ``count``; the mean is taken before the
        loss and as a constant.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Jung et al., BCO, 2024, on pairs.
    Reduces to: `bco_pair` with the mean as its shift.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> terms = bco_pair_running(**ratios, beta=0.1)
    >>> round(terms.state["mean"].item(), 6)
    -0.015
    """
    state = _with_rewards(state, torch.cat([beta * chosen_log_ratio, beta * rejected_log_ratio]))
    shift = state["mean"].to(chosen_log_ratio.dtype)
    losses = expected(
        lambda better, worse: -logsigmoid(beta * better - shift) - logsigmoid(shift - beta * worse),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )
    return Terms(losses, state=state)

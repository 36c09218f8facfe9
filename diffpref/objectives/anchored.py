"""Pairwise losses that judge each sample by itself, against the reference: NCA and anchored preferences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected

__all__ = ["apo_down", "apo_zero", "nca_pair"]


@objective(
    "nca_pair",
    kind="pairwise",
    source="Chen et al., Noise Contrastive Alignment of Language Models with Explicit Rewards, arXiv:2402.05369",
    evidence="official",
    aliases=("nca",),
    signs={"rejected_log_ratio": "+"},
)
def nca_pair(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
) -> Tensor:
    r"""Tell the chosen sample from noise, and keep its likelihood from falling.

    .. math:: \ell = -\log\sigma(r_w) - \tfrac12 \log\sigma(-r_w) - \tfrac12 \log\sigma(-r_l), \qquad r = \beta\,\Delta

    The optimum of the chosen reward is finite, :math:`\log 2`. With soft labels the loss is the expectation over the
    label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced; 2 ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Chen et al., Noise Contrastive Alignment, NeurIPS 2024; code: thu-ml/Noise-Contrastive-Alignment, TRL
    ``loss_type="nca_pair"``. The paper's InfoNCA of a pair is `dpo`.
    Reduces to: `bco_pair` with the second term taken from the chosen sample only by half.

    >>> import torch
    >>> loss = nca_pair(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    1.383053
    """

    def contrasted(better: Tensor, worse: Tensor) -> Tensor:
        noise = logsigmoid(-beta * better) + logsigmoid(-beta * worse)
        return -logsigmoid(beta * better) - noise / 2

    return expected(contrasted, preference, chosen_log_ratio, rejected_log_ratio)


@objective(
    "apo_zero",
    kind="pairwise",
    source="D'Oosterlinck et al., Anchored Preference Optimization, arXiv:2408.06266, eq. 7",
    evidence="official",
)
def apo_zero(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Raise the chosen sample and lower the rejected one; for chosen samples better than what the model makes.

    .. math:: \ell = 1 - \sigma(\beta\,\Delta_w) + \sigma(\beta\,\Delta_l)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1], over which the loss is the expectation; 1 where the batch has no
            such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) losses in (0, 2), unreduced; 1 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: D'Oosterlinck et al., Anchored Preference Optimization and Contrastive Revisions, TACL 2025, eq. 7; code:
    TRL ``loss_type="apo_zero"``.
    Reduces to: `apo_zero_unpaired` of the two samples, added.

    >>> import torch
    >>> loss = apo_zero(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.967513
    """
    return expected(
        lambda better, worse: torch.sigmoid(-beta * better) + torch.sigmoid(beta * worse),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )


@objective(
    "apo_down",
    kind="pairwise",
    source="D'Oosterlinck et al., Anchored Preference Optimization, arXiv:2408.06266, eq. 8",
    evidence="official",
    signs={"rejected_log_ratio": "+"},
)
def apo_down(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Lower both samples, the rejected one more; for chosen samples worse than what the model makes.

    .. math:: \ell = \sigma(\beta\,\Delta_w) + 1 - \sigma(\beta\,(\Delta_w - \Delta_l))

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1], over which the loss is the expectation; 1 where the batch has no
            such column. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) losses in (0, 2), unreduced; 1 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: D'Oosterlinck et al., Anchored Preference Optimization and Contrastive Revisions, TACL 2025, eq. 8; code:
    TRL ``loss_type="apo_down"``.
    Reduces to: `apo_zero` where the chosen log-ratio is 0, up to the direction of the chosen sample.

    >>> import torch
    >>> loss = apo_down(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.980043
    """
    return expected(
        lambda better, worse: torch.sigmoid(beta * better) + torch.sigmoid(-beta * (better - worse)),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )

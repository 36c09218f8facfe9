"""Pairs that the model labelled itself: a judged probability (OSP), or labels doubted where the model doubts (SPA)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffpref.core.annotations import HalfProbability, NonNegativeInt, Number, Positive, scale
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["osp_spce", "spa", "spa_decoupled"]

Quantile = Annotated[Number, Field(ge=0, lt=1)]
WINDOW = 50
"""Updates whose mean margins decide the threshold of doubt."""


@objective(
    "osp_spce",
    kind="pairwise",
    source="Online Self-Preferring Language Models, arXiv:2405.14103",
    evidence="memory",
    same_as="dpo",
    signs={},
    aliases=("osp", "soft_preference_cross_entropy"),
)
def osp_spce(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Meet the probability with which the model, as its own judge, prefers one sample to the other.

    .. math:: \ell = -p \log\sigma(z) - (1 - p) \log\sigma(-z), \qquad z = \beta\,(\Delta_w - \Delta_l)

    It is `dpo` with soft labels, which here must be there and may lie below 1/2.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the first sample.
        rejected_log_ratio: (B,) the same for the second.
        preference: (B,) p above in [0, 1], the judge's, averaged over both orders of presentation. No gradient.
        beta: as of `dpo`.

    Returns:
        (B,) positive losses, unreduced. The gradient by z is sigma(z) - p.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Online Self-Preferring Language Models, 2024; the form follows from its name, details from memory.
    Reduces to: `dpo` at preference=1; otherwise `dpo` plus (1 - p) z.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(osp_spce(**ratios, preference=torch.tensor([0.9])).item(), 6)
    0.643258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


def _doubted(
    margin: Tensor, judged: Tensor, state: dict[str, Tensor], smoothing: float, quantile: float, warmup_updates: int
) -> Terms:
    """Return `dpo` whose label is smoothed where the judged margin lies below the running threshold.

    Args:
        margin: (B,) logits.
        judged: (B,) the logits by which labels are doubted, without gradient.
        state: the mean margins of the last `WINDOW` updates, their number, and the threshold.
        smoothing: probability that a doubted label is wrong.
        quantile: of the mean margins, below which labels are doubted.
        warmup_updates: updates in which no label is doubted.
    """
    warm = (state["updates"] >= warmup_updates).to(margin.dtype)
    doubt = smoothing * warm * (judged <= state["threshold"]).to(margin.dtype)
    losses = logistic(margin, 1 - doubt)
    means = torch.cat([state["means"][1:], judged.mean().reshape(1).to(state["means"])])
    ordered, place = means.sort().values, int(WINDOW * quantile)
    full = state["updates"] + 1 >= WINDOW
    threshold = torch.where(full, (ordered[place] + ordered[min(place + 1, WINDOW - 1)]) / 2, state["threshold"])
    after = {"means": means, "updates": state["updates"] + 1, "threshold": threshold}
    return Terms(losses, state=after, metrics={"doubted": (doubt > 0).to(losses.dtype)})


def _nothing_seen() -> dict[str, Tensor]:
    zero = torch.zeros((), dtype=torch.float64)
    return {"means": torch.zeros(WINDOW, dtype=torch.float64), "updates": zero, "threshold": zero.clone()}


@objective(
    "spa",
    kind="pairwise",
    source="Kim et al., Spread Preference Annotation: Direct Preference Judgment for Efficient LLM Alignment,"
    " arXiv:2406.04412",
    evidence="official",
    coupling="batch",
    init=_nothing_seen,
    stops=("chosen_log_ratio", "rejected_log_ratio"),
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+"},
    aliases=("selfie",),
)
def spa(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    state: dict[str, Tensor],
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    refine_strength: HalfProbability = 0.1,
    quantile: Quantile = 0.1,
    warmup_updates: NonNegativeInt = 0,
) -> Terms:
    r"""Compare a pair that the model labelled itself, and doubt the label where the policy itself does.

    .. math:: \ell = -(1 - \alpha + \alpha k) \log\sigma(z) - (\alpha - \alpha k) \log\sigma(-z), \qquad
              z = \beta\,(\Delta_w - \Delta_l), \quad k = \mathbb{1}[z > \text{threshold}]

    The threshold is 0 until 50 updates have been seen; then it is the mean of two neighbours of the quantile among the
    mean margins of the last 50. (The authors' list grows without end, so that their quantile falls to its lowest; a
    window is what is meant.)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the sample that the previous policy rewarded
            most; the reference is that previous policy.
        rejected_log_ratio: (B,) the same for the sample that it rewarded least.
        state: mean margins, updates and threshold so far.
        beta: as of `dpo`.
        refine_strength: alpha above, in [0, 0.5).
        quantile: of the mean margins, below which labels are doubted.
        warmup_updates: updates in which no label is doubted; the authors' is a fifth of all.

    Returns:
        (B,) losses, the new statistics, and which labels were doubted.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Kim et al., SPA, ICLR 2025; code: kingdy2002/SPA ``loss_type="distill"`` with ``decouple_denoising=1``.
    Reduces to: `dpo` where no label is doubted; `cdpo` where all are.

    >>> import torch
    >>> spa(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8])).losses.item() < 0.6931
    True
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    return _doubted(margin, margin.detach(), state, refine_strength, quantile, warmup_updates)


@objective(
    "spa_decoupled",
    kind="pairwise",
    source="Kim et al., Spread Preference Annotation: Direct Preference Judgment for Efficient LLM Alignment,"
    " arXiv:2406.04412",
    evidence="official",
    coupling="batch",
    init=_nothing_seen,
    signs={},
)
def spa_decoupled(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    guide_chosen_log_ratio: Tensor,
    guide_rejected_log_ratio: Tensor,
    state: dict[str, Tensor],
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    refine_strength: HalfProbability = 0.1,
    quantile: Quantile = 0.1,
    warmup_updates: NonNegativeInt = 0,
) -> Terms:
    r"""Do as `spa`, with another model's doubt: the paper's is the policy extrapolated away from the reference.

    .. math:: \ell = -(1 - \alpha + \alpha k) \log\sigma(z) - (\alpha - \alpha k) \log\sigma(-z), \qquad
              k = \mathbb{1}\big[\beta\,(\Delta^g_w - \Delta^g_l) > \text{threshold}\big]

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        guide_chosen_log_ratio: (B,) guide minus reference log-likelihood of the chosen sample: of logits
            ``mix * policy + (1 - mix) * reference``. No gradient.
        guide_rejected_log_ratio: (B,) the same for the rejected sample.
        state: mean margins, updates and threshold so far.
        beta: as of `dpo`.
        refine_strength: alpha above, in [0, 0.5).
        quantile: of the guide's mean margins, below which labels are doubted.
        warmup_updates: updates in which no label is doubted; the authors' is a fifth of all.

    Returns:
        (B,) losses, the new statistics, and which labels were doubted.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Kim et al., SPA, ICLR 2025; code: kingdy2002/SPA ``loss_type="distill"``.
    Reduces to: `spa` where the guide is the policy.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(spa_decoupled(**ratios, **{f"guide_{k}": -v for k, v in ratios.items()}).losses.item(), 6)
    0.643258
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    judged = beta * (guide_chosen_log_ratio - guide_rejected_log_ratio)
    return _doubted(margin, judged, state, refine_strength, quantile, warmup_updates)

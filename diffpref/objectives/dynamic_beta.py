"""beta-DPO: beta follows the margins of each update, and pairs whose margin is out of the ordinary are left out."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffpref.core.annotations import NonNegative, Number, Positive, scale
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["beta_dpo"]

MOMENTUM = 0.9


def _start() -> dict[str, Tensor]:
    return {"mean": torch.zeros((), dtype=torch.float64), "std": torch.zeros((), dtype=torch.float64)}


@objective(
    "beta_dpo",
    kind="pairwise",
    source="Wu et al., beta-DPO: Direct Preference Optimization with Dynamic beta, arXiv:2407.08639",
    evidence="official",
    coupling="batch",
    init=_start,
    stops=("chosen_log_ratio", "rejected_log_ratio"),
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+"},
    aliases=("dynamic_beta_dpo",),
)
def beta_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    draw: Tensor,
    state: dict[str, Tensor],
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    sensitivity: NonNegative = scale(tokens=0.6, denoising=30000.0),
    filter_ratio: Annotated[Number, Field(ge=0, lt=1)] = 0.2,
    lowest_beta: Positive = scale(tokens=1e-3, denoising=50.0),
) -> Terms:
    r"""Compare as DPO does, with a beta that is larger where margins are larger than they use to be.

    .. math:: \ell = -\log\sigma(\beta' M), \qquad \beta' = \max\big(\beta\,(1 + a\,(\bar M_\text{kept} - \mu)),
              \beta_\text{min}\big), \qquad M = \Delta_w - \Delta_l

    The running mean mu and deviation s of the margins are updated first, with momentum 0.9. Of N pairs
    :math:`\lfloor N (1 - \rho) \rfloor` are kept, drawn without replacement with weights
    :math:`e^{-(M - \mu)^2 / 2 s^2}`: the largest of ``log weight + Gumbel`` are such a draw. Margins decide as
    constants.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        draw: (B,) a random number in (0, 1) a record, which decides the pairs that are kept. No gradient.
        state: running mean and standard deviation of margins.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: beta above, of which the one in force is a multiple.
        sensitivity: a above, for margins in the likelihood's unit.
        filter_ratio: rho above; nothing is left out while all margins so far were equal.
        lowest_beta: bound of the beta in force.

    Returns:
        (B,) losses with weight 0 where a pair is left out, the new statistics, and the beta in force.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wu et al., beta-DPO, NeurIPS 2024; code: junkangwu/beta-DPO ``mode_loss="beta_DPO"``, with 1e-8 beside s.
    Reduces to: `dpo` at sensitivity=0 and filter_ratio=0.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(beta_dpo(**ratios, draw=torch.tensor([0.5]), sensitivity=0.0, filter_ratio=0.0).losses.item(), 6)
    0.630258
    """
    margin = chosen_log_ratio - rejected_log_ratio
    seen = margin.detach()
    spread = seen.std() if len(seen) > 1 else seen.new_zeros(())
    mean = MOMENTUM * state["mean"] + (1 - MOMENTUM) * seen.mean()
    std = MOMENTUM * state["std"] + (1 - MOMENTUM) * spread
    kept = torch.ones_like(seen)
    if filter_ratio > 0:
        log_weight = -((seen - mean) / (std + 1e-8)).square() / 2
        drawn = log_weight - torch.log(-torch.log(draw))
        count = int(len(seen) * (1 - filter_ratio))
        kept = torch.zeros_like(seen).index_fill(0, drawn.topk(max(count, 1)).indices, 1.0)
        kept = torch.where(std > 0, kept, 1.0)
    surplus = (kept * seen).sum() / kept.sum() - mean
    used = (beta * (1 + sensitivity * surplus)).clamp(min=lowest_beta).to(margin.dtype)
    losses = logistic(used * margin, preference)
    metrics = {"beta": used.expand_as(seen), "kept": kept}
    return Terms(losses, weights=kept, state={"mean": mean, "std": std}, metrics=metrics)

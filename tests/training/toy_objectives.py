"""Objectives that see more than one record at a time, for the tests of replay; registered while a test needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.contracts import Terms
from diffpref.objectives import objective, registry


def anchored(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float = 20.0) -> Tensor:
    """As KTO: each side against a detached mean over the batch, which stands for the KL."""
    anchor = (chosen_log_ratio + rejected_log_ratio).mean().div(2).clamp(min=0).detach()
    up, down = beta * (chosen_log_ratio - anchor), beta * (anchor - rejected_log_ratio)
    return 2 - up.sigmoid() - down.sigmoid()


def centred(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float = 20.0) -> Tensor:
    """A mean over the batch through which gradient flows."""
    return (beta * (chosen_log_ratio - rejected_log_ratio.mean()) - 1).square()


def remembers(
    *, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float = 20.0, state: dict[str, Tensor]
) -> Terms:
    """As BCO: margins against their running mean."""
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    mean = 0.9 * state["mean"] + 0.1 * margin.detach().mean()
    return Terms(-logsigmoid(margin - mean), state={"mean": mean, "updates": state["updates"] + 1})


def weighted(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float = 20.0) -> Terms:
    """Weights of its own, which differ between records."""
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    return Terms(-logsigmoid(margin), weights=1 + chosen_log_ratio.detach().abs())


def labelled(*, log_ratio: Tensor, mismatched_log_ratio: Tensor, label: Tensor, beta: float = 20.0) -> Terms:
    """As KTO: single samples against a detached divergence that answers to other prompts estimate."""
    anchor = (beta * mismatched_log_ratio).mean().clamp(min=0).detach()
    value = torch.where(label > 0.5, beta * log_ratio - anchor, anchor - beta * log_ratio)
    return Terms(1 - value.sigmoid(), metrics={"anchor": anchor.expand(len(label))})


def labels_remembered(*, log_ratio: Tensor, label: Tensor, beta: float = 20.0, state: dict[str, Tensor]) -> Terms:
    """As BCO on single samples: rewards against their running mean."""
    reward = beta * log_ratio
    mean = 0.9 * state["mean"] + 0.1 * reward.detach().mean()
    sign = torch.where(label > 0.5, 1.0, -1.0)
    return Terms(-logsigmoid(sign * (reward - mean)), state={"mean": mean, "updates": state["updates"] + 1})


def ranked(*, list_log_ratio: Tensor, list_scores: Tensor, list_mask: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy against the scores."""
    there = torch.ones_like(list_log_ratio) if list_mask is None else list_mask
    logits = (1000 * list_log_ratio).masked_fill(there == 0, -1e9)
    target = (list_scores.masked_fill(there == 0, -1e9)).softmax(dim=1)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1)


def rank_coupled(*, list_log_ratio: Tensor, ranks: Tensor, beta: float = 20.0) -> Tensor:
    """Lists against a mean over all lists, through which gradient flows."""
    return (beta * (list_log_ratio - list_log_ratio.mean()) + ranks).square().sum(dim=1)


def by_units(
    *,
    chosen_token_log_ratio: Tensor,
    chosen_token_kl: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_log_ratio: Tensor,
    rejected_token_kl: Tensor,
    rejected_token_mask: Tensor,
    beta: float = 1000.0,
) -> Tensor:
    """As TDPO2: sums over units, less the difference of the divergences, the chosen one's without gradient."""
    chosen, chosen_kl = ((t * chosen_token_mask).sum(1) for t in (chosen_token_log_ratio, chosen_token_kl))
    rejected, rejected_kl = ((t * rejected_token_mask).sum(1) for t in (rejected_token_log_ratio, rejected_token_kl))
    return -logsigmoid(beta * (chosen - rejected - 0.5 * (rejected_kl - chosen_kl.detach())))


def regressed(
    *, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, chosen_win_rate: Tensor, rejected_win_rate: Tensor
) -> Tensor:
    """As SPPO: each log-ratio towards its win rate."""
    chosen, rejected = (
        100 * chosen_log_ratio - chosen_win_rate + 0.5,
        100 * rejected_log_ratio - rejected_win_rate + 0.5,
    )
    return chosen.square() + rejected.square()


@contextmanager
def registered() -> Iterator[None]:
    """Register the toys as any package would, and take them out again."""

    def start() -> dict[str, Tensor]:
        return {"mean": torch.zeros(()), "updates": torch.zeros((), dtype=torch.int64)}

    given = {"kind": "pairwise", "source": "ours", "evidence": "ours"}
    objective("toy_anchored", coupling="batch", **given)(anchored)  # type: ignore[arg-type]
    objective("toy_centred", coupling="batch", **given)(centred)  # type: ignore[arg-type]
    objective("toy_remembers", init=start, **given)(remembers)  # type: ignore[arg-type]
    objective("toy_weighted", **given)(weighted)  # type: ignore[arg-type]
    objective("toy_regressed", **given)(regressed)  # type: ignore[arg-type]
    point, ordered, unit = ({**given, "kind": kind} for kind in ("pointwise", "listwise", "token"))
    objective("toy_labelled", coupling="batch", **point)(labelled)  # type: ignore[arg-type]
    objective("toy_labels_remembered", init=start, **point)(labels_remembered)  # type: ignore[arg-type]
    objective("toy_ranked", **ordered)(ranked)  # type: ignore[arg-type]
    objective("toy_rank_coupled", coupling="batch", **ordered)(rank_coupled)  # type: ignore[arg-type]
    objective("toy_units", **unit)(by_units)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in [name for name in registry._things if name.startswith("toy_")]:
            del registry._things[name], registry._origins[name]

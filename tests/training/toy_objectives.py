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
    try:
        yield
    finally:
        for name in ("toy_anchored", "toy_centred", "toy_remembers", "toy_weighted"):
            del registry._things[name], registry._origins[name]

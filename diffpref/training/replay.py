"""Replay: the objectives see all records of an update at once, however these are divided among forwards and processes.

Every micro-batch is asked without gradient; what the likelihood makes of it, a few numbers a record, is gathered over
all processes; the objectives are computed once, and so are the derivatives of the loss by these numbers; then each
micro-batch is asked again with gradient, and its backward pass starts from those derivatives. That is the gradient of
the whole, at the price of one more forward of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Context, Likelihood, Rows, Tensors
from diffpref.core.vocabulary import parse
from diffpref.training.drawn import drawn
from diffpref.training.forward import Watcher
from diffpref.training.plan import Plan

__all__ = ["Asked", "ask", "derivatives", "gathered", "replayed"]


@dataclass(frozen=True)
class Asked:
    """A micro-batch after the forwards without gradient.

    Args:
        rows: the question; not prepared twice, because preparing may ask models too.
        outputs: what the frozen roles answered.
        values: (B, ...) vocabulary tensors, without gradient.
    """

    rows: Rows
    outputs: Mapping[str, Tensors]
    values: Tensors


def ask(
    plan: Plan, likelihood: Likelihood, batches: Iterable[Batch], context: Context, watcher: Watcher | None = None
) -> list[Asked]:
    """Ask every role about each micro-batch, without gradient."""
    return [_ask(plan, likelihood, batch, context, watcher) for batch in batches]


@torch.no_grad()
def _ask(plan: Plan, likelihood: Likelihood, batch: Batch, context: Context, watcher: Watcher | None) -> Asked:
    rows = plan.method.prepare(batch, context)
    outputs: dict[str, Tensors] = {name: context.roles[name](rows) for name in plan.asked}
    if watcher is not None:
        watcher.asked(batch, rows, dict(outputs))
    values = dict(likelihood(plan.names, outputs, rows))
    values |= drawn(plan.composition.tensors, values, batch.keys, context.random)
    outputs = {name: answers for name, answers in outputs.items() if name not in plan.trained}
    if all(name.form in likelihood.from_raw for name in map(parse, plan.names) if name.kind == "model"):
        outputs = {name: likelihood.raw(answers, rows) for name, answers in outputs.items()}
    return Asked(rows, outputs, values)


def gathered(asked: Sequence[Asked], gather: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return values and columns of all records of the update, in the order of the sampler.

    Args:
        asked: the micro-batches of this process.
        gather: puts the tensors of all processes after one another.
    """
    values = {name: gather(torch.cat([a.values[name] for a in asked])) for name in asked[0].values}
    names = asked[0].rows.columns
    return values, {name: gather(torch.cat([a.rows.columns[name] for a in asked])) for name in names}


def derivatives(loss: Tensor, values: Tensors) -> dict[str, Tensor]:
    """Return d loss / d value by name, of the values that the loss depends on."""
    found = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(values, found, strict=True) if gradient is not None}


def replayed(plan: Plan, likelihood: Likelihood, asked: Asked, context: Context, gradients: Tensors) -> Tensor:
    """Ask the trained roles again; return a scalar whose gradient is this micro-batch's share of the loss's.

    Args:
        plan: says which roles are trained.
        likelihood: as before.
        asked: the micro-batch.
        context: with the roles.
        gradients: d loss / d value of these records.
    """
    again = {name: context.roles[name](asked.rows, grad=True) for name in plan.asked if name in plan.trained}
    outputs = {**asked.outputs, **again}
    values = likelihood(list(gradients), outputs, asked.rows)
    return torch.stack([(gradient * values[name]).sum() for name, gradient in gradients.items()]).sum()

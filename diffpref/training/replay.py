"""Replay: the objectives see all records of an update at once, however these are divided among forwards and processes.

Every micro-batch is asked without gradient; what the likelihood makes of it, a few numbers a record, is gathered over
all processes; the objectives are computed once, and so are the derivatives of the loss by these numbers; then each
micro-batch is asked again with gradient, and its backward pass starts from those derivatives. That is the gradient of
the whole, at the price of one more forward of the policy.

A micro-batch of many rows, such as one of long lists, can be asked again piece by piece: the derivatives by what a
single row answered are numbers, too, so that no more is held for a backward pass than one piece needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Context, Likelihood, Rows, Tensors
from diffpref.core.vocabulary import parse
from diffpref.training.drawn import drawn
from diffpref.training.forward import Watcher, ask_role, spread_keys
from diffpref.training.plan import Plan

__all__ = ["Asked", "ask", "derivatives", "gathered", "replayed"]


@dataclass(frozen=True)
class Asked:
    """A micro-batch after the forwards without gradient.

    Args:
        rows: the question; not prepared twice, because preparing may ask models too.
        outputs: what the frozen roles answered.
        values: (B, ...) vocabulary tensors, without gradient.
        keys: of the B records.
        trained: what the trained roles answered, (N,) numbers each, where such numbers say all that is read.
    """

    rows: Rows
    outputs: Mapping[str, Tensors]
    values: Tensors
    keys: tuple[tuple[str, int], ...]
    trained: Mapping[str, Tensors] = field(default_factory=dict)


def ask(
    plan: Plan, likelihood: Likelihood, batches: Iterable[Batch], context: Context, watcher: Watcher | None = None
) -> list[Asked]:
    """Ask every role about each micro-batch, without gradient."""
    return [_ask(plan, likelihood, batch, context, watcher) for batch in batches]


@torch.no_grad()
def _ask(plan: Plan, likelihood: Likelihood, batch: Batch, context: Context, watcher: Watcher | None) -> Asked:
    rows = plan.method.prepare(batch, context)
    outputs: dict[str, Tensors] = {name: ask_role(context, name, rows) for name in plan.asked}
    if watcher is not None:
        watcher.asked(batch, rows, dict(outputs))
    values = dict(likelihood(plan.names, outputs, rows))
    values |= drawn(plan.composition.tensors, values, batch.keys, context.random)
    keys = spread_keys(batch.keys, len(next(iter(values.values()))))
    frozen = {name: answers for name, answers in outputs.items() if name not in plan.trained}
    if not all(name.form in likelihood.from_raw for name in map(parse, plan.names) if name.kind == "model"):
        return Asked(rows, frozen, values, keys)
    raw = {name: dict(likelihood.raw(answers, rows)) for name, answers in outputs.items()}
    trained = {name: raw.pop(name) for name in plan.asked if name in plan.trained}
    return Asked(rows, raw, values, keys, trained)


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


def replayed(
    plan: Plan,
    likelihood: Likelihood,
    asked: Asked,
    context: Context,
    gradients: Tensors,
    max_rows: int | None = None,
) -> list[Callable[[], Tensor]]:
    """Return what to do one after the other: each asks the trained roles again, and returns a scalar.

    The gradients of these scalars add up to this micro-batch's share of the loss's. Backward each before the next is
    made, so that only one is held.

    Args:
        plan: says which roles are trained.
        likelihood: as before.
        asked: the micro-batch.
        context: with the roles.
        gradients: d loss / d value of these records.
        max_rows: of one forward; None: all rows at once. It is the same for every process, so that all make the same
            sequence of model calls.
    """
    if max_rows is None:
        return [partial(_whole, plan, likelihood, asked, context, gradients)]
    leaves = {role: {n: t.detach().requires_grad_() for n, t in raw.items()} for role, raw in asked.trained.items()}
    with torch.enable_grad():
        total = _weighted(gradients, likelihood(list(gradients), {**asked.outputs, **leaves}, asked.rows))
    flat = [leaf for raw in leaves.values() for leaf in raw.values()]
    found = iter(torch.autograd.grad(total, flat, allow_unused=True))
    by_row = {role: {n: g for n in raw if (g := next(found)) is not None} for role, raw in leaves.items()}
    return [
        partial(_piece, likelihood, piece, context, by_row, slice(number * max_rows, (number + 1) * max_rows))
        for number, piece in enumerate(asked.rows.pieces(max_rows))
    ]


def _whole(plan: Plan, likelihood: Likelihood, asked: Asked, context: Context, gradients: Tensors) -> Tensor:
    again = {name: ask_role(context, name, asked.rows, grad=True) for name in plan.asked if name in plan.trained}
    return _weighted(gradients, likelihood(list(gradients), {**asked.outputs, **again}, asked.rows))


def _piece(likelihood: Likelihood, rows: Rows, context: Context, by_row: Mapping[str, Tensors], place: slice) -> Tensor:
    """Ask each trained role about some rows and weigh what it says of each by the loss's derivative."""
    again = {role: likelihood.raw(ask_role(context, role, rows, grad=True), rows) for role in by_row}
    shares = [(g[place] * again[role][n]).sum() for role, gradients in by_row.items() for n, g in gradients.items()]
    return torch.stack(shares).sum()


def _weighted(gradients: Tensors, values: Tensors) -> Tensor:
    return torch.stack([(gradient * values[name]).sum() for name, gradient in gradients.items()]).sum()

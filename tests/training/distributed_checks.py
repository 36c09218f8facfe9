"""Checks that several processes run together, one after another: a launch costs more than all of them.

Run it with ``accelerate launch --use_fsdp --fsdp_version 2`` and a JSON file: ``{"results": folder, "checks": [[name,
{argument: value}, way], ...]}``. The way is ``fsdp2`` or ``ddp``: there the launcher's wish to shard is taken back.
Every process writes what each check returned, or the error that it met, to ``<results>/<rank>.json``. A check is a
function with the decorator; all processes call it with the same arguments, so what one of them waits for the other must
do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffpref.config import Guards, build_recipe
from diffpref.core.errors import DiffprefError, Interrupted, NonFiniteError
from diffpref.core.failpoints import fail_at
from diffpref.models import registry as families
from diffpref.models.sharding import gather_tensors
from diffpref.schedules import ddim_timesteps
from diffpref.training import Trainer

Check = Callable[..., Any]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Make a function known by its name."""
    CHECKS[function.__name__] = function
    return function


@check
def train(keys: dict[str, Any], steps: int | None = None) -> dict[str, float]:
    """Train by a recipe to its end, or for so many more updates without one.

    Return which share of policy, reference and moments lies in this process, by their number of elements.
    """
    trainer = Trainer(build_recipe(keys))
    if steps is None:
        trainer.fit()
    else:
        updates = trainer.steps()
        for _ in range(steps):
            next(updates)
        updates.close()
    moments = [t for state in trainer.updater.optimizer.state.values() for t in state.values() if t.ndim]
    reference: Any = trainer.roles["reference"]
    parts = {"policy": trainer.bare.parameters(), "reference": reference.network.parameters(), "moments": moments}
    return {part: _share(list(tensors)) for part, tensors in parts.items()}


def _share(tensors: list[Any]) -> float:
    return sum(_here(tensor).numel() for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


def _here(tensor: Any) -> Tensor:
    """Return the part of a tensor that lies in this process."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


@check
def first_gradient(keys: dict[str, Any], save: str, only_middle: bool = False) -> dict[str, float]:
    """Do the first update; return its metrics and write its gradient, gathered, into a file.

    Args:
        keys: of a recipe that clips nothing.
        save: path of the safetensors file.
        only_middle: take the middle block alone for the blocks of the network: it compiles in seconds.
    """
    trainer = Trainer(build_recipe(keys))
    if only_middle:
        family: Any = families.get(keys["model"]["family"])
        every, family.blocks = family.blocks, staticmethod(lambda network: [network.mid_block])
    try:
        trainer.prepare()
    finally:
        if only_middle:
            family.blocks = staticmethod(every)
    named, found = dict(trainer.bare.named_parameters()), {}

    def note(*_: Any) -> None:
        found.update({name: p.grad for name, p in named.items() if p.grad is not None})

    trainer.updater.optimizer.register_step_pre_hook(note)
    metrics = trainer.updater(0)
    whole = gather_tensors(found)
    if trainer.world.is_main:
        save_file({name: tensor.contiguous() for name, tensor in whole.items()}, save)
    return metrics


@check
def inversions(keys: dict[str, Any]) -> dict[str, list[int]]:
    """Train by an exact landing; return how often the network was asked in an update, and this process's own steps."""
    trainer = Trainer(build_recipe(keys))
    updates = trainer.steps()
    trainer.setup()
    asked: list[int] = []
    trainer.bare.register_forward_hook(lambda *_: asked.append(1))
    method: Any = trainer.plan.method
    grid = ddim_timesteps(trainer.family.schedule, method.num_steps, "leading")
    counts, own = [], []
    for step in range(trainer.recipe.training.steps):
        total = trainer.records_per_update
        items = trainer.batches.sampler.batch(step, total, rank=trainer.world.rank, num_ranks=trainer.world.size)
        uniform = trainer.random.uniform("timestep", trainer.batches.keys(items))
        farthest = trainer.family.sample_timesteps(uniform).clamp(min=1).max()
        own.append(int((grid < farthest).sum()) + 1)
        next(updates)
        counts.append(len(asked))
        asked.clear()
    for _ in updates:
        pass
    return {"calls": counts, "steps": own}


class _Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * math.inf


@dataclass(frozen=True)
class _Spoilt:
    """A likelihood whose numbers, or their gradients, are not finite."""

    whole: Any
    what: str

    def __call__(self, names: Any, outputs: Any, rows: Any) -> dict[str, Tensor]:
        values = self.whole(names, outputs, rows)
        if self.what == "loss":
            return {name: value * math.nan for name, value in values.items()}
        return {name: _Explodes.apply(v) if v.requires_grad else v for name, v in values.items()}


@check
def not_finite(keys: dict[str, Any], what: str) -> dict[str, Any]:
    """Meet a loss or a gradient that is not finite in the second process, at the second update: stop, skip, go on."""
    trainer = Trainer(build_recipe(keys))
    updates = trainer.steps()
    next(updates)
    sound = trainer.updater.likelihood
    if trainer.world.rank == 1:
        trainer.updater = replace(trainer.updater, likelihood=_Spoilt(sound, what))
    before = [p.detach().clone() for p in trainer.updater.trained]
    try:
        next(updates)
    except NonFiniteError as error:
        told = str(error)
    else:
        raise AssertionError("it trained")
    trainer.updater.guard.settings = Guards(nonfinite="skip")
    left_out = trainer.updater(1)
    same = [torch.equal(_here(a), _here(b)) for a, b in zip(before, trainer.updater.trained, strict=True)]
    trainer.updater = replace(trainer.updater, likelihood=sound)
    return {
        "told": told,
        "unchanged": all(same),
        "step": trainer.step,
        "left out": ["loss" in left_out, left_out["data/skipped"]],
        "goes on": math.isfinite(trainer.updater(2)["loss"]),
    }


@check
def calls(keys: dict[str, Any]) -> list[Any]:
    """Train; return role and number of rows of every call of a model that this process made, in their order."""
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    made: list[Any] = []

    class Noted:
        def __init__(self, name: str, role: Any) -> None:
            self.name, self.role = name, role

        def __call__(self, rows: Any, grad: bool = False) -> Any:
            made.append([self.name, len(rows.conditioning), grad])
            return self.role(rows, grad)

    context = trainer.updater.context
    noted = {name: Noted(name, role) for name, role in context.roles.items()}
    trainer.updater = replace(trainer.updater, context=replace(context, roles=noted, networks=noted))
    for _ in trainer.steps():
        pass
    return made


@check
def banked(keys: dict[str, Any]) -> dict[str, int]:
    """Train with a bank; return how many rows this process asked its reference, and how many it read."""
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    return trainer.banked["reference"].counts


@check
def refused(keys: dict[str, Any]) -> str:
    """Train by a recipe that must not begin; return the error."""
    try:
        Trainer(build_recipe(keys)).fit()
    except DiffprefError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it trained")


@check
def stopped(keys: dict[str, Any], number: int, rank: int) -> dict[str, Any]:
    """Train, and send one process a signal after its second update; return how each process ended."""

    class Sender:
        def on_step(self, trainer: Trainer, step: int, metrics: Mapping[str, float]) -> None:
            if step == 2 and trainer.world.rank == rank:
                os.kill(os.getpid(), number)

        def on_end(self, trainer: Trainer) -> None:
            raise AssertionError("it came to its end")

    trainer = Trainer(build_recipe(keys), callbacks=[Sender()])
    try:
        trainer.fit()
    except Interrupted as error:
        return {"told": str(error), "code": error.exit_code, "step": trainer.step}
    raise AssertionError("it was not stopped")


@check
def disk_full(keys: dict[str, Any]) -> str:
    """Train on a disk that is full for the first process's checkpoint; return the error."""
    trainer = Trainer(build_recipe(keys))
    next(updates := trainer.steps())
    fault = fail_at(3, OSError(errno.ENOSPC, "No space left on device"))
    try:
        with fault if trainer.world.is_main else contextlib.nullcontext():
            trainer.save_checkpoint()
    except DiffprefError as error:
        updates.close()
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it was saved")


@check
def command(argv: list[str]) -> str:
    """Run ``diffpref`` with these arguments; return what it printed."""
    from diffpref.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(argv) == 0
    return said.getvalue()


def main(path: str) -> None:
    """Run the checks of a file."""
    import toy_methods  # these two lie beside this file
    import toy_objectives
    from accelerate import PartialState

    torch.set_num_threads(1)
    asked = json.loads(Path(path).read_text())
    state = PartialState(cpu=not torch.cuda.is_available())
    answers = []
    for name, arguments, way in asked["checks"]:
        os.environ["ACCELERATE_USE_FSDP"] = str(way == "fsdp2").lower()
        started = time.perf_counter()
        try:
            with toy_objectives.registered(), toy_methods.registered():
                answer = {"value": CHECKS[name](**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.append({"check": name, **answer, "seconds": time.perf_counter() - started})
        Path(asked["results"], f"{state.process_index}.json").write_text(json.dumps(answers))
    state.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

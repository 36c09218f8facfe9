"""Data that a method makes while it trains, handed out update after update.

A collection serves ``collect_every`` updates and makes the records of ``collect_every / passes`` of them; each is used
``passes`` times. Which prompts these are is a function of the collection's number, and every draw is keyed by (record,
visit), where the visit counts the samples of a prompt and the passes over them too; so a collection can be made again
as long as the roles that made it are as they were. They move while a collection lasts, so that what is still to be used
goes into a checkpoint; at the end of a collection nothing does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, CollectingMethod, Context, Role, Rows, World
from diffpref.core.errors import CheckpointError, ConfigError, ShapeError
from diffpref.training.batches import Batches
from diffpref.training.feed import Feed, Items

__all__ = ["Collector", "check_collecting"]


def check_collecting(method: CollectingMethod, name: str, total: int) -> None:
    """Refuse numbers that do not divide each other.

    Args:
        method: that collects.
        name: of the method, for messages.
        total: records of an update.

    Raises:
        ConfigError: an update's records are not whole groups, or updates not whole passes.
    """
    if total % method.group_size:
        raise ConfigError(
            f"method.{name}.group_size: {method.group_size} samples of each prompt do not divide the {total} records of"
            " one update (training.batch_size x training.accumulation x processes); change one of them"
        )
    if method.collect_every % method.passes:
        raise ConfigError(
            f"method.{name}.passes: {method.passes} passes over what is collected do not divide collect_every"
            f" {method.collect_every}, the updates of a collection; change one of them"
        )


@dataclass
class _Counted:
    """A role that counts the rows it is asked about."""

    role: Role
    counts: dict[str, int] = field(default_factory=lambda: {"rows": 0})

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        self.counts["rows"] += len(rows.conditioning)
        return self.role(rows, grad)


class Collector(Feed):
    """Lets a method collect when it is time, and completes the batches of the updates that follow.

    Args:
        batches: of the data, or of prompts alone.
        total: records of an update: samples, whole groups of them.
        world: the processes; each collects for its own share.
        method: that collects, and whose numbers `check_collecting` has found good.
    """

    def __init__(self, batches: Batches, total: int, world: World, method: CollectingMethod) -> None:
        super().__init__(batches, total, world)
        self.method, self.every = method, method.collect_every
        self.slots = method.collect_every // method.passes
        self.number: int | None = None  # of the collection that is held
        self.done = 0
        self.held: dict[str, Tensor] = {}  # "media/rejected" -> (rows, ...) in main memory
        self.rows: dict[tuple[int, int], int] = {}

    # ------------------------------------------------------------ an update

    def begin(self, step: int, context: Context) -> dict[str, float]:
        number, self.done = step // self.every, step + 1
        if number == self.number:
            return {}
        if step % self.every:
            raise CheckpointError(
                f"update {step + 1} lies within a collection, and what was collected at update"
                f" {number * self.every + 1} is not there"
            )
        started, counts = time.perf_counter(), {"rows": 0}
        roles: dict[str, Role] = {name: _Counted(role, counts) for name, role in context.roles.items()}
        batch = self.batches.batch(self._own(number))
        with torch.no_grad():
            made = self.method.collect(batch, replace(context, roles=roles, networks=roles))
        self._hold(number, _added(batch, made))
        return {
            "collect/forwards": float(counts["rows"] * self.world.size),
            "perf/collect_seconds": time.perf_counter() - started,
            **self._scores(context),
        }

    def items(self, step: int) -> Items:
        share = self.total // self.world.size
        return self.everywhere(step)[self.world.rank * share :][:share]

    def everywhere(self, step: int) -> list[tuple[int, int]]:
        place = step % self.every
        slot = step // self.every * self.slots + place % self.slots
        return [(index, visit + place // self.slots) for index, visit in self._slot(slot)]

    def batch(self, items: Items) -> Batch:
        plain, passes = self.batches.batch(items), self.method.passes
        rows = torch.tensor([self.rows[index, visit - visit % passes] for index, visit in items])
        taken = {name: tensor[rows].to(self.batches.device) for name, tensor in self.held.items()}
        found = {name: _below(taken, name) for name in ("media", "columns")}
        return replace(plain, media={**plain.media, **found["media"]}, columns={**plain.columns, **found["columns"]})

    # ------------------------------------------------------------ which records

    def _slot(self, slot: int) -> list[tuple[int, int]]:
        """Return the records of an update that is collected for, of all processes, on their first pass."""
        size, passes = self.method.group_size, self.method.passes
        prompts = self.batches.sampler.batch(slot, self.total // size)
        return [(index, (visit * size + k) * passes) for index, visit in prompts for k in range(size)]

    def _own(self, number: int) -> list[tuple[int, int]]:
        """Return this process's records of a collection, slot after slot."""
        share = self.total // self.world.size
        slots = (self._slot(number * self.slots + slot) for slot in range(self.slots))
        return [item for slot in slots for item in slot[self.world.rank * share :][:share]]

    def _hold(self, number: int, held: dict[str, Tensor]) -> None:
        self.held = {name: tensor.detach().cpu() for name, tensor in held.items()}
        self.rows = {item: row for row, item in enumerate(self._own(number))}
        self.number = number

    # ------------------------------------------------------------ the log

    def _scores(self, context: Context) -> dict[str, float]:
        """Return the mean of each reward over all samples of a collection that it could score."""
        scores = self.held.get("columns/scores")
        if scores is None:
            return {}
        values = context.world.gather(scores.double().to(self.batches.device))
        told = {}
        for name, column in zip(context.scorers, values.T, strict=True):
            finite = column[column.isfinite()]
            if len(finite):
                told[f"collect/{name}"] = finite.mean().item()
            if len(finite) < len(column):
                told[f"collect/{name}_not_finite"] = float(len(column) - len(finite))
        return told

    # ------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Tensor]:
        if self.number is None or self.done % self.every == 0:
            return {}
        return {name: self._gathered(tensor) for name, tensor in sorted(self.held.items())}

    def load(self, state: Mapping[str, Tensor], done: int) -> None:
        """Put back what `state` returned, under any number of processes.

        Raises:
            CheckpointError: it lies within a collection, and holds none, or one of another size.
        """
        self.number, self.held, self.rows, self.done = None, {}, {}, done
        if done % self.every == 0:
            return
        if not state or any(len(tensor) != self.slots * self.total for tensor in state.values()):
            raise CheckpointError(f"holds no collection of {self.slots * self.total} samples")
        share = self.total // self.world.size
        own = slice(self.world.rank * share, (self.world.rank + 1) * share)
        shares = {name: t.unflatten(0, (self.slots, self.total))[:, own].flatten(0, 1) for name, t in state.items()}
        self._hold(done // self.every, shares)

    def _gathered(self, tensor: Tensor) -> Tensor:
        """Return (slots * total, ...): slot after slot, in each the records of all processes in their order."""
        whole = self.world.gather(tensor.to(self.batches.device)).cpu()
        return whole.unflatten(0, (self.world.size, self.slots, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def _added(batch: Batch, made: Batch) -> dict[str, Tensor]:
    """Return what a method added to a batch.

    Raises:
        ShapeError: it has other records than the batch, or a tensor without a row for each.
    """
    found: dict[str, Tensor] = {}
    for kind, before, after in (("media", batch.media, made.media), ("columns", batch.columns, made.columns)):
        found |= {f"{kind}/{name}": tensor for name, tensor in after.items() if name not in before}
    if made.keys != batch.keys or not found or any(len(tensor) != len(batch) for tensor in found.values()):
        sizes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in found.items()) or "nothing"
        raise ShapeError(f"collect: must add a row for each of the {len(batch)} records that it was given; got {sizes}")
    return found


def _below(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the tensors of a kind, by their names within it."""
    return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}

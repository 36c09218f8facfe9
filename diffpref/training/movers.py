"""The rules by which roles move, each a function of the number of updates done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from diffpref.core.contracts import Ema, Every, RoleSpec, Snapshots, Tensors
from diffpref.core.errors import CheckpointError
from diffpref.core.randomness import Random
from diffpref.models.sharding import is_shard, scatter_tensors
from diffpref.training.average import copy_over, move_towards

__all__ = ["Mover", "make_mover"]


class Mover(Protocol):
    """Moves the weights of one role."""

    def after_update(self, done: int) -> None:
        """Move, if it is time, after ``done`` updates."""
        ...

    def next_round(self) -> None:
        """Move, if that is the rule, when a round of data and training ends."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        ...

    def load(self, state: Tensors) -> None:
        """Put back what `state` returned."""
        ...


def make_mover(name: str, spec: RoleSpec, role: Tensors, policy: Tensors, random: Random) -> Mover:
    """Return what moves a role by its rule.

    Args:
        name: of the role, part of the key of its draws.
        spec: with the rule.
        role: the weights that move, by name: the tensors themselves.
        policy: what is trained, by the same names.
        random: of the run.
    """
    if isinstance(spec.update, Snapshots):
        return _FromPool(name, spec.update, role, policy, random)
    return _Following(spec, role, policy)


class _Following:
    """`Every`, `Ema` and ``round``: the role follows the policy."""

    def __init__(self, spec: RoleSpec, role: Tensors, policy: Tensors) -> None:
        self.rule, self.role, self.policy = spec.update, role, policy

    def after_update(self, done: int) -> None:
        rule = self.rule
        if isinstance(rule, Every) and done % rule.updates == 0:
            move_towards(self.role, self.policy, rule.tau)
        elif isinstance(rule, Ema) and done % rule.every == 0:
            move_towards(self.role, self.policy, 1 - rule.decay_at(done // rule.every - 1))

    def next_round(self) -> None:
        if self.rule == "round":
            copy_over(self.role, self.policy)

    def state(self) -> dict[str, Tensor]:
        return dict(self.role)

    def load(self, state: Tensors) -> None:
        _check_fits(state, self.role)
        copy_over(self.role, state)


class _FromPool:
    """`Snapshots`: the role is one of the policy's earlier states, which are kept in main memory."""

    def __init__(self, name: str, rule: Snapshots, role: Tensors, policy: Tensors, random: Random) -> None:
        self.name, self.rule, self.role, self.policy, self.random = name, rule, role, policy, random
        self.pool: dict[int, dict[str, Tensor]] = {}  # updates done -> the policy then, oldest first
        self.current = 0
        self._take(0)

    def after_update(self, done: int) -> None:
        if done % self.rule.every == 0:
            self._take(done)
        if done % (self.rule.draw_every or self.rule.every) == 0:
            self.current = self._draw(done)
            copy_over(self.role, self.pool[self.current])

    def _take(self, done: int) -> None:
        self.pool[done] = {name: _kept(tensor) for name, tensor in self.policy.items()}
        spare = [key for key in self.pool if key not in (0, done, self.current)]
        for key in spare[: max(0, len(self.pool) - self.rule.keep)]:
            del self.pool[key]

    def _draw(self, done: int) -> int:
        held = list(self.pool)
        if self.rule.draw == "initial":
            return held[0]
        if self.rule.draw == "latest":
            return held[-1]
        uniform = self.random.uniform("snapshot", [(self.name, done)]).item()
        return held[int(uniform * len(held))]

    def next_round(self) -> None:
        return None

    def state(self) -> dict[str, Tensor]:
        tensors = {f"{done}/{name}": t for done, held in self.pool.items() for name, t in held.items()}
        return {**tensors, "current": torch.tensor(self.current)}

    def load(self, state: Tensors) -> None:
        pool: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            done, _, name = key.partition("/")
            if name:
                pool.setdefault(int(done), {})[name] = tensor
        for held in pool.values():
            _check_fits(held, self.role)
        self.pool = {done: scatter_tensors(pool[done], self.role) for done in sorted(pool)}
        self.current = int(state["current"])
        copy_over(self.role, self.pool[self.current])


def _kept(tensor: Tensor) -> Tensor:
    """Return a copy in main memory; a shard stays where it is."""
    return tensor.detach().clone() if is_shard(tensor) else tensor.detach().to("cpu", copy=True)


def _check_fits(state: Mapping[str, Tensor], role: Tensors) -> None:
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in role.items()}:
        raise CheckpointError("the weights of a role do not fit")

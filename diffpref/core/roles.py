"""What a role is made of: where its weights come from, and the rule by which they move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from diffpref.core.errors import ConfigError, suggest

__all__ = ["Ema", "Every", "RoleSpec", "Snapshots", "Source", "Update"]

Source: TypeAlias = Literal["auto", "policy", "base", "initial", "copy", "adapter", "path"]
Still: TypeAlias = Literal["never", "round"]
Draw: TypeAlias = Literal["uniform", "initial", "latest"]


@dataclass(frozen=True)
class Every:
    """Every so many updates the role becomes the policy, or moves towards it by a share.

    Args:
        updates: between two moves.
        tau: the share: role <- role + tau * (policy - role); 1 copies.
    """

    updates: int
    tau: float = 1.0

    def __post_init__(self) -> None:
        _check("updates", self.updates, self.updates >= 1, ">= 1")
        _check("tau", self.tau, 0 < self.tau <= 1, "> 0 and <= 1")


@dataclass(frozen=True)
class Ema:
    """The role is an exponential moving average of the policy: role <- d * role + (1 - d) * policy.

    Args:
        decay: the largest d.
        every: updates between two moves.
        ramp: d grows by it with each move, up to ``decay``; not given: d is ``decay`` from the first.
        flat: moves, at the beginning, at which d is 0 and the role is the policy; only with ``ramp``.
    """

    decay: float
    every: int = 1
    ramp: float | None = None
    flat: int = 0

    def __post_init__(self) -> None:
        _check("decay", self.decay, 0 <= self.decay < 1, ">= 0 and < 1")
        _check("every", self.every, self.every >= 1, ">= 1")
        _check("ramp", self.ramp, self.ramp is None or self.ramp > 0, "> 0")
        _check("flat", self.flat, self.flat >= 0, ">= 0")
        if self.flat and self.ramp is None:
            raise ConfigError(f"flat: needs ramp, which says how d grows afterwards; got flat {self.flat} alone")

    def decay_at(self, move: int) -> float:
        """Return d at a move, counted from 0."""
        return self.decay if self.ramp is None else min(self.decay, max(0, move - self.flat) * self.ramp)


@dataclass(frozen=True)
class Snapshots:
    """The role is one of the policy's earlier states, drawn anew at every snapshot. The first of them is the start.

    Args:
        every: updates between two snapshots.
        draw: which one the role becomes.
        keep: how many are held: the start and the newest. Each is as large as what is trained.
        draw_every: updates between two draws; not given: with each snapshot.
    """

    every: int
    draw: Draw = "uniform"
    keep: int = 8
    draw_every: int | None = None

    def __post_init__(self) -> None:
        _check("every", self.every, self.every >= 1, ">= 1")
        _check_word("draw", self.draw, get_args(Draw))
        _check("keep", self.keep, self.keep >= 2, ">= 2 (the start and the newest)")
        _check("draw_every", self.draw_every, self.draw_every is None or self.draw_every >= 1, ">= 1")


Update: TypeAlias = Still | Every | Ema | Snapshots


@dataclass(frozen=True)
class RoleSpec:
    """Where a role's weights come from and how they move.

    Args:
        source: ``"policy"`` (what is trained, without gradient), ``"base"`` (the network without adapters),
            ``"initial"`` (the same, also as the reference of a policy that starts from a LoRA of its own), ``"copy"``
            (what the policy is at the start), ``"adapter"`` (an adapter with a start of its own), ``"path"`` (a model
            or a LoRA that lies there), or ``"auto"``: base where that is what the policy starts from, else copy.
        update: ``"never"``; ``"round"``: becomes the policy when a round ends; `Every`, `Ema` or `Snapshots`.
        path: folder of a model or a LoRA, for ``source="path"``.
        trained: a peer: trained in the policy's steps, in a parameter group of its own.
        learning_rate_scale: the group's learning rate is the policy's times this.
        in_prepare: the method itself asks the role, so it is there whatever the objective names.

    Raises:
        ConfigError: a value that does not exist, or values that contradict each other.
    """

    source: Source = "auto"
    update: Update = "never"
    path: str | None = None
    trained: bool = False
    learning_rate_scale: float = 1.0
    in_prepare: bool = False

    def __post_init__(self) -> None:
        _check_word("source", self.source, get_args(Source))
        if isinstance(self.update, str):
            _check_word("update", self.update, get_args(Still))
        if (self.source == "path") != (self.path is not None):
            raise ConfigError(f"path: goes with source 'path', and only with it; got source '{self.source}'")
        if self.moves and self.source in ("policy", "base", "initial"):
            raise ConfigError(f"update: source '{self.source}' cannot move; give 'never', or source 'copy'")
        if self.trained and self.source not in ("copy", "adapter", "path"):
            raise ConfigError(f"trained: needs source copy, adapter or path, got '{self.source}'")
        if self.trained and self.moves:
            raise ConfigError("trained: a role is trained or moved by a rule, not both; give update 'never'")
        if self.source == "adapter" and not self.trained:
            raise ConfigError("source: 'adapter' starts as nothing and must be trained; give trained: true, or 'copy'")
        _check("learning_rate_scale", self.learning_rate_scale, self.learning_rate_scale > 0, "> 0")
        if self.learning_rate_scale != 1 and not self.trained:
            raise ConfigError("learning_rate_scale: is for roles that are trained; give trained: true")

    @property
    def moves(self) -> bool:
        """Whether the weights change by a rule."""
        return self.update != "never"


def _check(name: str, value: float | None, good: bool, expected: str) -> None:
    if not good or (value is not None and not math.isfinite(value)):
        raise ConfigError(f"{name}: must be {expected}, got {value}")


def _check_word(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}: unknown '{value}'{suggest(str(value), known) or ';'} known: {', '.join(known)}")

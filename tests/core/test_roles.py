"""A role's declaration is one line, and one that contradicts itself is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffpref.core.contracts import Ema, Every, RoleSpec, Snapshots
from diffpref.core.errors import ConfigError

MISTAKES: dict[str, Callable[[], Any]] = {
    "source: unknown 'cpy'; did you mean 'copy'? known: auto, policy, base": lambda: RoleSpec("cpy"),  # type: ignore
    "update: unknown 'nver'; did you mean 'never'? known: never, round": lambda: RoleSpec(update="nver"),  # type: ignore
    "path: goes with source 'path', and only with it; got source 'copy'": lambda: RoleSpec("copy", path="x"),
    "path: goes with source 'path', and only with it; got source 'path'": lambda: RoleSpec("path"),
    "update: source 'base' cannot move": lambda: RoleSpec("base", Every(3)),
    "update: source 'policy' cannot move": lambda: RoleSpec("policy", "round"),
    "trained: needs source copy, adapter or path, got 'auto'": lambda: RoleSpec(trained=True),
    "trained: a role is trained or moved by a rule": lambda: RoleSpec("copy", Ema(0.9), trained=True),
    "source: 'adapter' starts as nothing and must be trained": lambda: RoleSpec("adapter"),
    "learning_rate_scale: must be > 0, got 0": lambda: RoleSpec("copy", trained=True, learning_rate_scale=0),
    "learning_rate_scale: is for roles that are trained": lambda: RoleSpec(learning_rate_scale=2.0),
    "updates: must be >= 1, got 0": lambda: Every(0),
    "tau: must be > 0 and <= 1, got 1.5": lambda: Every(1, 1.5),
    "decay: must be >= 0 and < 1, got 1": lambda: Ema(1),
    "decay: must be >= 0 and < 1, got nan": lambda: Ema(float("nan")),
    "every: must be >= 1, got 0": lambda: Ema(0.5, 0),
    "ramp: must be > 0, got 0": lambda: Ema(0.5, ramp=0),
    "flat: needs ramp": lambda: Ema(0.5, flat=3),
    "flat: must be >= 0, got -1": lambda: Ema(0.5, ramp=1, flat=-1),
    "every: must be >= 1, got -2": lambda: Snapshots(-2),
    "draw: unknown 'uniformly'; did you mean 'uniform'?": lambda: Snapshots(1, draw="uniformly"),  # type: ignore
    "keep: must be >= 2 (the start and the newest), got 1": lambda: Snapshots(1, keep=1),
    "draw_every: must be >= 1, got 0": lambda: Snapshots(1, draw_every=0),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_contradiction_is_one_line(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MISTAKES[line]()
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_a_role_moves_by_a_rule_or_stays() -> None:
    assert not RoleSpec().moves and not RoleSpec("copy", trained=True).moves
    assert all(RoleSpec("copy", rule).moves for rule in ("round", Every(3), Ema(0.9), Snapshots(30)))

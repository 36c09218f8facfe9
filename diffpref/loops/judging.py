"""Rewards as a command line names them: ``oracle``, ``hps=bundled:shapes-hps``, ``'{hps: {path: P, version: v2}}'``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffpref.config import Named, config_error, parse_yaml
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError
from diffpref.loops.opening import quiet_libraries

__all__ = ["check_rewards", "check_scorers", "judges_and_facts", "load_rewards", "parse_reward"]

ORACLE = "oracle"


def parse_reward(word: str) -> Named:
    """Read one reward of a command line.

    Raises:
        ConfigError: neither NAME, NAME=PATH nor {NAME: {path: PATH, OPTION: VALUE}}.
    """
    name, equals, path = word.partition("=")
    if re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII) and equals:
        if not path:
            raise ConfigError(f"reward '{word}': no path after '='")
        value: Any = {name: {"path": path}}
    else:
        value = parse_yaml(word, where=f"reward '{word}'")
    try:
        return Named.model_validate(value)
    except ValidationError as error:
        raise config_error(error, Named, f"reward '{word}'") from None


def check_rewards(named: Sequence[Named], path: str) -> list[str]:
    """Return a line for each name that is no reward's; see `diffpref.rewards.check_named`."""
    from diffpref import rewards

    return rewards.check_named(named, path)


def load_rewards(
    named: Sequence[Named], device: str, cache: Path | str | None = None, *, pairs: bool = False
) -> dict[str, Reward]:
    """Load rewards by name, without the libraries' loading bars; see `diffpref.rewards.load_named`."""
    from diffpref import rewards

    quiet_libraries()
    return rewards.load_named(named, device, cache, pairs=pairs)


def check_scorers(scorers: Mapping[str, Reward], family: str) -> None:
    """Refuse rewards that cannot score what a family draws; of answers, and of names unknown, nothing is said.

    Args:
        scorers: name -> reward.
        family: a name of the registry.

    Raises:
        ConfigError: a reward of another kind of media.
    """
    from diffpref.evaluation.measuring import KINDS, check_kinds
    from diffpref.models import registry

    kind = KINDS.get(registry.get(family).samples) if family in registry else None
    if kind is not None:
        check_kinds(scorers, kind)


def judges_and_facts(named: Sequence[Named], device: str) -> tuple[dict[str, Reward], Any]:
    """Return the judges, and the facts of the shapes worlds where the oracle is among the names.

    The oracle's verdict is reported fact by fact, which says more than its count.
    """
    from diffpref.rewards.oracle import shapes_facts

    judges = load_rewards(named, device)
    return judges, shapes_facts if judges.pop(ORACLE, None) is not None else None

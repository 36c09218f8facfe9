"""Rewards as a command line names them: ``oracle``, ``hps=bundled:shapes-hps``, ``'{hps: {path: P, version: v2}}'``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffpref.config import Named, config_error, parse_yaml
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, suggest
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
    """Return a line for each name that is no reward's, without loading any.

    Args:
        named: as a recipe names them.
        path: where they stand in it, for the lines.
    """
    from diffpref import rewards

    known = [*rewards.registry, *rewards.SHORT_FORMS]
    return [
        f"{path}[{number}]: unknown reward '{one.name}'{suggest(one.name, known) or ';'} known: {', '.join(known)}"
        for number, one in enumerate(named)
        if one.name not in rewards.registry and one.name not in rewards.SHORT_FORMS
    ]


def load_rewards(
    named: Sequence[Named], device: str, cache: Path | str | None = None, *, pairs: bool = False
) -> dict[str, Reward]:
    """Load rewards by name.

    Args:
        named: names with ``path`` and options.
        device: for rewards that run a network and whose options name no device.
        cache: folder in which scores are kept and looked for, see `diffpref.rewards.cached`; None: nowhere.
        pairs: whether a judge that compares two items, and scores none, will do.

    Raises:
        ConfigError: a name twice, an unknown name or option, or a judge of pairs where scores are needed.
        ModelError: a path holds no such model.
    """
    from diffpref import rewards

    quiet_libraries()
    names = [one.name for one in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"reward '{twice[0]}' is named twice; scores are told apart by their names")
    loaded: dict[str, Reward] = {}
    for one in named:
        options = dict(one.options)
        path = options.pop("path", None)
        if path is not None and not isinstance(path, str):
            raise ConfigError(f"reward '{one.name}': path must be text, got {path!r}")
        if rewards.takes(one.name, "device"):
            options = {"device": device, **options}
        reward = rewards.load(one.name, path, **options)
        if not hasattr(reward, "score"):
            if pairs:
                loaded[one.name] = reward
                continue
            raise ConfigError(
                f"reward '{one.name}' compares two items with these options, and scores are needed here; choose others,"
                " or make it the judge of a loop"
            )
        loaded[one.name] = reward if cache is None else rewards.cached(reward, cache)
    return loaded


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

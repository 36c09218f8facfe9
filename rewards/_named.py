"""Rewards as a recipe names them, loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.config import Named
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, suggest

__all__ = ["check_named", "load_named"]


def check_named(named: Sequence[Named], path: str) -> list[str]:
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


def load_named(
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

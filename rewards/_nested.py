"""A reward inside another, as a recipe writes it: its name, or its name with path and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, DiffprefError

__all__ = ["Nested", "inner_reward"]

Nested: TypeAlias = str | dict[str, dict[str, Any]]
"""``pickscore``, or ``{pickscore: {path: ..., output: cosine}}``."""


def inner_reward(
    owner: str, nested: str | Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any] | None = None
) -> Reward:
    """Load the reward that an outer one asks for.

    Args:
        owner: the outer reward, for messages.
        nested: see `Nested`; ``path`` and the options of the inner one's factory.
        shared: options of the outer one, such as ``device``, for inner ones that have them and do not say otherwise.

    Raises:
        ConfigError: not one name, what the inner reward does not know, or one whose scores depend on what is asked
            together.
        ModelError: the inner reward's weights cannot be loaded.
    """
    from diffpref import rewards

    if isinstance(nested, str):
        nested = {nested: {}}
    if len(nested) != 1:
        found = ", ".join(nested) or "none"
        raise ConfigError(f"reward '{owner}': give one inner reward, such as {{pickscore: {{path: ...}}}}, got {found}")
    [(name, options)] = nested.items()
    if not isinstance(options.get("path", ""), str):
        raise ConfigError(f"reward '{owner}': {name}.path must be text, got {options['path']!r}")
    try:
        given = {option: value for option, value in (shared or {}).items() if rewards.takes(name, option)}
        inner = rewards.load(name, **{**given, **options})
    except DiffprefError as error:
        raise type(error)(f"reward '{owner}': {error}") from error
    if not inner.info.itemwise:
        raise ConfigError(f"reward '{owner}': '{name}' scores an item by what is asked together with it")
    return inner

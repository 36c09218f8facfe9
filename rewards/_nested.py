"""A reward inside another, as a recipe writes it: its name, or its name with path and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, DiffprefError

__all__ = ["Nested", "inner_reward"]

Nested: TypeAlias = str | dict[str, dict[str, Any]]
"""``pickscore``, or ``{pickscore: {path: ..., output: cosine}}``."""


def inner_reward(owner: str, nested: str | Mapping[str, Mapping[str, Any]]) -> Reward:
    """Load the reward that an outer one asks for.

    Args:
        owner: the outer reward, for messages.
        nested: see `Nested`; ``path`` and the options of the inner one's factory.

    Raises:
        ConfigError: not one name, or what the inner reward does not know.
        ModelError: the inner reward's weights cannot be loaded.
    """
    from diffpref import rewards

    if isinstance(nested, str):
        nested = {nested: {}}
    if len(nested) != 1:
        found = ", ".join(nested) or "none"
        raise ConfigError(f"reward '{owner}': give one inner reward, such as {{pickscore: {{path: ...}}}}, got {found}")
    [(name, options)] = nested.items()
    try:
        return rewards.load(name, **options)
    except DiffprefError as error:
        raise type(error)(f"reward '{owner}': {error}") from error

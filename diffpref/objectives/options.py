"""Hyper-parameters as a strict pydantic model, and what its errors say to a user."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffpref.core.annotations import resolve
from diffpref.core.errors import ConfigError, suggest

__all__ = ["options_error", "options_model"]

_LIMITS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}

_TYPES = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
}


def options_model(name: str, defaults: Mapping[str, tuple[Any, Any]], likelihood: str) -> type[BaseModel]:
    """Return a frozen model that refuses unknown keys, wrong types, NaN and infinity.

    Args:
        name: of the objective.
        defaults: option -> (annotation, default), ``inspect.Parameter.empty`` where the option must be given.
        likelihood: decides defaults made with `diffpref.core.annotations.scale`.
    """
    fields: dict[str, Any] = {
        option: (hint, ... if default is inspect.Parameter.empty else resolve(default, likelihood))
        for option, (hint, default) in defaults.items()
    }
    config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    return create_model(f"{name}_options", __config__=config, **fields)


def options_error(error: ValidationError, path: str, known: Sequence[str]) -> ConfigError:
    """Return an error with one line for each thing that is wrong: dotted path, what was expected, what was given."""
    return ConfigError("\n".join(_line(details, path, known) for details in error.errors()))


def _line(error: Any, path: str, known: Sequence[str]) -> str:
    where = ".".join([path, *(str(part) for part in error["loc"])])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        hint = suggest(str(error["loc"][-1]), known) or ";"
        return f"{where}: unknown option{hint} known: {', '.join(known) or 'none'}"
    if kind == "missing":
        return f"{where}: is required"
    if kind in _LIMITS:
        sign, limit = _LIMITS[kind]
        return f"{where}: must be {sign} {error['ctx'][limit]:g}, got {given}"
    if kind == "finite_number":
        return f"{where}: must be finite, got {given}"
    text = _TYPES.get(kind, error["msg"].replace("Input should be", "must be"))
    return f"{where}: {text}, got {given!r}"

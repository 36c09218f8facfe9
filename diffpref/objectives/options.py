"""Hyper-parameters as a strict pydantic model, and what its errors say to a user."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffpref.core.annotations import resolve
from diffpref.core.errors import ConfigError
from diffpref.core.problems import dotted, problem, unknown

__all__ = ["options_error", "options_model"]


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


def _line(details: Any, path: str, known: Sequence[str]) -> str:
    where = dotted(path, details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{where}: {unknown(str(details['loc'][-1]), known, 'option')}"
    return f"{where}: {problem(details)}"

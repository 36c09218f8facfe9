"""Options of a factory, checked against its signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffpref.core.errors import ConfigError, suggest
from diffpref.core.problems import problem

__all__ = ["validated"]


def validated(
    owner: str, factory: Callable[..., Any], options: Mapping[str, Any], also: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the options as the keyword-only parameters of ``factory`` want them.

    Args:
        owner: whose options they are, for messages.
        factory: takes them.
        options: by name.
        also: names that the caller reads itself; messages count them among the known ones.

    Raises:
        ConfigError: all unknown names and wrong values at once.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    hints = typing.get_type_hints(factory, include_extras=True)
    result, problems = {}, []
    for name, value in options.items():
        if name not in known:
            told = [*known, *also]
            problems.append(f"unknown option '{name}'{suggest(name, told) or ';'} known: {', '.join(told) or 'none'}")
            continue
        try:
            result[name] = TypeAdapter(hints.get(name, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            problems.append(f"{name}: {problem(error.errors()[0])}")
    if problems:
        raise ConfigError(f"{owner}: {'; '.join(problems)}")
    return result

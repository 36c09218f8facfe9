"""What pydantic finds wrong, in one wording for recipes, options and the arguments of factories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffpref.core.errors import suggest

__all__ = ["dotted", "problem", "unknown"]

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "float_type": "a number",
    "finite_number": "a finite number",
    "frozen_set_type": "a list",
    "greater_than": "> {gt:g}",
    "greater_than_equal": ">= {ge:g}",
    "int_type": "a whole number",
    "less_than": "< {lt:g}",
    "less_than_equal": "<= {le:g}",
    "list_type": "a list",
    "model_type": "a section of keys and values",
    "multiple_of": "a multiple of {multiple_of:g}",
    "set_type": "a list",
    "string_too_long": "at most {max_length} characters long",
    "string_type": "text",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "tuple_type": "a list",
}


def dotted(prefix: str, location: Iterable[int | str]) -> str:
    """Return the path of a value: ``objective[0].dpo.beta``."""
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def unknown(name: str, known: Sequence[str], what: str = "key") -> str:
    """Say that a key does not exist, with the closest that does."""
    return f"unknown {what}{suggest(name, known) or ';'} known: {', '.join(known) or 'none'}"


def problem(details: Mapping[str, Any]) -> str:
    """Say what was expected and what was given.

    Args:
        details: an item of pydantic's ``ValidationError.errors()``.
    """
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return "must be given"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        one = f"one of {', '.join(known)}" if len(known) > 1 else context["expected"]
        return f"must be {one}, got {_short(given)}{suggest(given, known) if isinstance(given, str) else ''}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_type" and isinstance(given, bool):
        return f"must be text, got {given}; YAML reads yes, no, on and off as booleans: put quotes around the word"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"must be as follows: {details['msg']}, got {_short(given)}"
    return f"must be {expected.format(**context)}, got {_short(given)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Validation errors as a person wants them: all at once, a line each, dotted path first, with a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from diffpref.config.section import alternatives
from diffpref.core.errors import ConfigError, suggest

__all__ = ["config_error", "dotted_names"]

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


def config_error(error: ValidationError, model: type[BaseModel], prefix: str = "") -> ConfigError:
    """Return one `ConfigError` that lists every problem, a line each.

    Args:
        error: what pydantic raised.
        model: the class that was validated.
        prefix: dotted path of the validated part within the config, such as ``"method"``.
    """
    lines = [_line(details, model, prefix) for details in error.errors(include_url=False)]
    return ConfigError("\n".join(dict.fromkeys(lines)))


def dotted_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every value."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None or getattr(section, "one_value", False):
            yield prefix + name
        else:
            yield from dotted_names(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    for member in alternatives(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
        for argument in get_args(member):  # the item of a list
            if found := _section(argument):
                return found
    return None


def _line(details: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    location = details["loc"]
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{path}: {_problem(details, model)}" if path else _problem(details, model)


def _problem(details: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        return _unknown(str(details["loc"][-1]), _class_at(model, details["loc"][:-1]), model)
    if kind == "missing":
        return f"must be given: {_description(model, details['loc'])}"
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


def _unknown(name: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    known = list(section.model_fields)
    if not (hint := suggest(name, known)):
        elsewhere = [path for path in dotted_names(model) if path.rsplit(".", 1)[-1] == name]
        hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else ";"
    return f"unknown key{hint} known: {', '.join(known)}"


def _class_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _section(model.model_fields[part].annotation) or model
    return model


def _description(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    field = _class_at(model, location[:-1]).model_fields.get(str(location[-1]))
    return (field.description if field else None) or "it has no default"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Validation errors as a person wants them: all at once, a line each, dotted path first, with a suggestion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from diffpref.config.section import alternatives
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.problems import dotted, problem, unknown

__all__ = ["config_error", "dotted_names"]


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
        if section is None or getattr(section, "one_value", False) or _is_mapping(field.annotation):
            yield prefix + name
        else:
            yield from dotted_names(section, f"{prefix}{name}.")


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(member) is dict for member in alternatives(annotation))


def _section(annotation: Any) -> type[BaseModel] | None:
    for member in alternatives(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
        for argument in get_args(member):  # the item of a list
            if found := _section(argument):
                return found
    return None


def _line(details: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    path = dotted(prefix, details["loc"])
    return f"{path}: {_problem(details, model)}" if path else _problem(details, model)


def _problem(details: Mapping[str, Any], model: type[BaseModel]) -> str:
    if details["type"] == "extra_forbidden":
        return _unknown(str(details["loc"][-1]), _class_at(model, details["loc"][:-1]), model)
    if details["type"] == "missing":
        return f"{problem(details)}: {_description(model, details['loc'])}"
    return problem(details)


def _unknown(name: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    known = list(section.model_fields)
    elsewhere = [path for path in dotted_names(model) if path.rsplit(".", 1)[-1] == name]
    if elsewhere and not suggest(name, known):
        return f"unknown key; did you mean '{elsewhere[0]}'? known: {', '.join(known)}"
    return unknown(name, known)


def _class_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _section(model.model_fields[part].annotation) or model
    return model


def _description(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    field = _class_at(model, location[:-1]).model_fields.get(str(location[-1]))
    return (field.description if field else None) or "it has no default"

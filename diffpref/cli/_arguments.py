"""Command lines of the data commands: mistakes are one line, and a recipe's values can be given as flags."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from diffpref.config import config_error, load_yaml, parse_yaml
from diffpref.config.problems import dotted_names
from diffpref.config.recipe import find_recipe
from diffpref.config.section import alternatives
from diffpref.core.errors import ConfigError, suggest

__all__ = ["Parser", "add_fields", "build_section", "overrides"]

S = TypeVar("S", bound=BaseModel)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are a `ConfigError` instead of a page of usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; '{self.prog} --help' tells more")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown flag gets a suggestion.

        Raises:
            ConfigError: an unknown flag, or a value that is missing or wrong.
        """
        found, unknown = self.parse_known_args(list(argv))
        if unknown:
            flag = unknown[0].partition("=")[0]
            self.error(f"{flag}: unknown{suggest(flag, self._option_string_actions)}")
        return found


def _field(model: type[BaseModel], path: str) -> Any:
    *sections, name = path.split(".")
    for section in sections:
        model = next(m for m in alternatives(model.model_fields[section].annotation) if issubclass(m, BaseModel))
    return model.model_fields[name]


def _takes(model: type[BaseModel], path: str) -> tuple[bool, bool]:
    """Tell whether a field takes text, and whether it takes a list."""
    members = alternatives(_field(model, path).annotation)
    return str in members, any(getattr(member, "__origin__", None) is list for member in members)


def _flags(model: type[BaseModel]) -> list[str]:
    """Return what can be given as flags: not the values of sections in a list, of which there may be several."""
    return [path for path in dotted_names(model) if "." not in path or not _takes(model, path.partition(".")[0])[1]]


def add_fields(parser: Parser, model: type[BaseModel]) -> None:
    """Add a flag for each value of a recipe, under its dotted path."""
    for path in _flags(model):
        text = (_field(model, path).description or "").replace("%", "%%")
        nargs = "+" if _takes(model, path)[1] else None
        parser.add_argument(f"--{path}", dest=path, nargs=nargs, metavar="VALUE", help=text, default=argparse.SUPPRESS)


def overrides(arguments: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    """Return the recipe's values that were given as flags, by dotted path."""
    given = {path: getattr(arguments, path) for path in _flags(model) if hasattr(arguments, path)}
    values: dict[str, Any] = {}
    for path, words in given.items():
        text, many = _takes(model, path)
        if not many:
            values[path] = words if text else parse_yaml(words, where=f"--{path}")
        elif text:  # one value or several
            values[path] = words if len(words) > 1 else words[0]
        else:
            values[path] = [parse_yaml(word, where=f"--{path}") for word in words]
    return values


def build_section(model: type[S], recipe: str, given: Mapping[str, Any]) -> S:
    """Read a recipe file, or a bundled one, put flags over it, and check the result.

    Raises:
        ConfigError: no such recipe, or every problem of the result, a line each.
    """
    values = load_yaml(find_recipe(recipe))
    for path, value in given.items():
        *sections, name = path.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{section}: must be a section of keys and values, got {node!r}")
        node[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise config_error(error, model) from None

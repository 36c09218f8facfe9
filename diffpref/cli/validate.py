"""``diffpref validate``: check a recipe fully, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffpref.cli.registries import registry
from diffpref.config import Recipe, parse_recipe_cli
from diffpref.core.errors import ConfigError

__all__ = ["main", "problems"]


def main(argv: Sequence[str]) -> int:
    """Read a recipe with its overrides, then look every name and option up; print ``ok`` or a line a problem."""
    as_json = "--json" in argv
    try:
        recipe = parse_recipe_cli([word for word in argv if word != "--json"], prog="diffpref validate")
        found = problems(recipe)
    except ConfigError as error:
        found = str(error).splitlines()
    if as_json:
        print(json.dumps({"ok": not found, "problems": found}, indent=1, ensure_ascii=False))
        return 2 if found else 0
    if found:
        raise ConfigError("\n".join(found))
    print("ok")
    return 0


def problems(recipe: Recipe) -> list[str]:
    """Return a line for each name or option of a recipe that its registry does not accept."""
    found: list[str] = []
    with _collecting(found, "model.family"):
        registry("families").canonical(recipe.model.family)
    with _collecting(found, "adapter.kind"):
        registry("adapters").canonical(recipe.adapter.kind)
    with _collecting(found, "method"):
        recipe.method.validate_with(registry("methods").get(recipe.method.name), "method")
    for index, term in enumerate(recipe.objective or []):
        with _collecting(found, path := f"objective[{index}]"):
            spec = registry("objectives").get(term.name).spec
            spec.read_options(term.options, likelihood="denoising", path=path)
    return found


@contextmanager
def _collecting(found: list[str], path: str) -> Iterator[None]:
    """Add the lines of a `ConfigError` to what was found, each with the dotted path before it."""
    try:
        yield
    except ConfigError as error:
        found += [line if line.startswith(path) else f"{path}: {line}" for line in str(error).splitlines()]

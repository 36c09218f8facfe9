"""``diffpref validate``: check a recipe fully, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from diffpref.config import Recipe, parse_recipe_cli
from diffpref.core.errors import ConfigError

__all__ = ["main", "problems"]


def main(argv: Sequence[str]) -> int:
    """Read a recipe with its overrides, match its parts; print ``ok`` or a line a problem."""
    as_json = "--json" in argv
    try:
        found = problems(parse_recipe_cli([word for word in argv if word != "--json"], prog="diffpref validate"))
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
    """Return a line for each name or option that is wrong, and for each part that does not fit the others."""
    from diffpref.loops.judging import check_rewards
    from diffpref.training.plan import make_plan

    found = check_rewards(recipe.validation.rewards, "validation.rewards")
    try:
        make_plan(recipe)
    except ConfigError as error:
        found += str(error).splitlines()
    return found

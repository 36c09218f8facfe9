"""Write ``docs/paper_index.md``: each paper, what it became here, and its hyper-parameters as a part of a recipe.

    python docs/papers.py

Everything comes from the registries and the bundled recipes; `tests/house/test_docs_pages.py` fails when it is stale.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from diffpref.cli.registries import description, registry
from diffpref.config import dump_yaml, load_recipe, load_yaml, recipe_names
from diffpref.config.recipe import find_recipe

__all__ = ["PAGE", "paper_index"]

PAGE = Path(__file__).resolve().parent / "paper_index.md"
KINDS = {"methods": "method", "objectives": "objective"}
SHOWN = ("adapter", "likelihood", "method", "objective", "optim", "training")
OTHER = "Other sources"


def paper_index() -> str:
    """Return the page."""
    papers: dict[str, list[tuple[str, str, str]]] = {}  # number -> (kind, name, what is said of the source)
    for kind in KINDS:
        for name in registry(kind):
            for part in filter(None, map(str.strip, description(registry(kind).get(name))["source"].split(";"))):
                number = re.search(r"arXiv:(\d{4}\.\d{4,5})", part)
                papers.setdefault(number[1] if number else OTHER, []).append((kind, name, part))
    sections = [_section(number, papers[number]) for number in sorted(set(papers) - {OTHER})]
    if OTHER in papers:
        lines = [f"- {_thing(kind, name)}: {part}" for kind, name, part in papers[OTHER]]
        sections.append(f"## {OTHER}\n\n" + "\n".join(lines) + "\n")
    head = (
        "# Paper index\n\nWhat each paper became here, and its hyper-parameters as a part of a recipe. In brackets: how"
        " far its own code was read (official, paper, secondary, memory, ours).\n`diffpref cite NAME` prints BibTeX."
        " This page is made by `python docs/papers.py`.\n"
    )
    return "\n".join([head, *sections])


def _section(number: str, uses: list[tuple[str, str, str]]) -> str:
    fullest = max((part for _, _, part in uses), key=lambda part: len(_without_place(part)))
    said = [f"- {_thing(kind, name)}{_place(part)}" for kind, name, part in uses]
    title = _without_place(fullest)
    parts = [f"## {title}, [arXiv:{number}](https://arxiv.org/abs/{number})\n", "\n".join(said) + "\n"]
    own = [name for kind, name, part in uses if kind == "methods" and not _place(part)]  # not one equation of it
    recipes = [recipe for recipe in recipe_names() if _method(recipe) in own]
    parts += [_block(f"`{recipe}`", _of_recipe(recipe)) for recipe in recipes]
    for kind, name, _ in uses:
        if kind == "objectives" and not recipes:
            defaults = registry(kind).get(name).spec.options_for("denoising")
            fields = defaults.model_fields.items()
            options = {key: field.get_default() for key, field in fields if not field.is_required()}
            parts.append(_block(f"`{name}` with its defaults for denoisers", {"objective": [{name: options}]}))
    return "\n".join(parts)


def _thing(kind: str, name: str) -> str:
    evidence = description(registry(kind).get(name))["evidence"]
    return f"{KINDS[kind]} `{name}` ({evidence})"


def _without_place(part: str) -> str:
    """Leave out the number, and what comes after it: the equation or the section."""
    return re.sub(r",? *arXiv:[\d.]+.*", "", part)


def _place(part: str) -> str:
    place = re.sub(r".*arXiv:\d{4}\.\d{4,5}", "", part).strip(" ,")
    return f", {place}" if place else ""


@cache
def _method(recipe: str) -> str | None:
    values = load_yaml(find_recipe(recipe))
    if "method" not in values:  # of another kind: data, rounds
        return None
    named = load_recipe(recipe, {"output": "runs/x", "data.source": "data/x"}).method.name
    return registry("methods").canonical(named)


def _of_recipe(recipe: str) -> dict[str, Any]:
    values = load_yaml(find_recipe(recipe))
    return {key: values[key] for key in SHOWN if key in values}


def _block(title: str, values: dict[str, Any]) -> str:
    return f"{title}:\n\n```yaml\n{dump_yaml(values)}```\n"


if __name__ == "__main__":
    PAGE.write_text(paper_index(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes\n")

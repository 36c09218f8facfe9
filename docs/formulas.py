"""Write ``docs/objectives.md``: the formula of each objective, what it becomes in a limit, where it was verified.

    python docs/formulas.py

Everything comes from the registry, the docstrings and the golden files; a test fails when the page is stale.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from diffpref.cli.registries import defined_for, needs, registry

__all__ = ["PAGE", "measured", "objectives_page"]

HERE = Path(__file__).resolve().parent
PAGE, GOLDEN = HERE / "objectives.md", HERE.parent / "tests" / "golden" / "objectives"
TABLES = {"tokens": HERE.parent / "benchmarks" / "text_world.json"}
"""Likelihood -> a committed table of results by objective."""
LIKELIHOODS = {"tokens": "text", "denoising": "denoisers", "steps": "sampling steps", "score": "rewards"}
KINDS = {
    "pairwise": "Pairs",
    "pointwise": "Single examples",
    "listwise": "Lists",
    "token": "Tokens and other units",
    "step": "Sampling steps",
    "supervised": "Supervised",
}


def objectives_page() -> str:
    """Return the page."""
    things = registry("objectives")
    head = (
        "# Objectives\n\nEach is a pure function of log-likelihoods and labels; `objectives.NAME` calls it, and a"
        " recipe names it under `objective`. `diffpref list objectives --kind pairwise --without reference` chooses,"
        " `diffpref cite NAME` prints BibTeX. *Evidence* says how far the source was read: official code, paper,"
        " a secondary source, memory, or ours. This page is made by `python docs/formulas.py`.\n"
    )
    kinds = (_kind(kind, title, things) for kind, title in KINDS.items())
    return "\n".join([head, _table(things), *filter(None, kinds)])


def measured(likelihood: str) -> set[str]:
    """Return the objectives with a measured result in the committed table of a likelihood."""
    path = TABLES.get(likelihood)
    return set(json.loads(path.read_text(encoding="utf-8"))["objectives"]) if path and path.exists() else set()


def _table(things: Any) -> str:
    results = {likelihood: measured(likelihood) for likelihood in LIKELIHOODS}
    lines = [
        "## Objective and likelihood\n",
        "*defined*: the likelihood gives every quantity that the formula names; *published*: the source used it so;"
        " *measured*: the tables of this repository hold a run (`benchmarks/text_world.md`).\n",
        f"| objective | {' | '.join(LIKELIHOODS.values())} |",
        "|---" * (1 + len(LIKELIHOODS)) + "|",
    ]
    for name in things:
        thing = things.get(name)
        known = set(defined_for(thing))
        cells = []
        for likelihood in LIKELIHOODS:
            states = {
                "defined": likelihood in known,
                "published": likelihood in thing.spec.published,
                "measured": name in results[likelihood],
            }
            cells.append(", ".join(state for state, holds in states.items() if holds) or "-")
        lines.append(f"| [`{name}`](#{_anchor(name)}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _kind(kind: str, title: str, things: Any) -> str:
    sections = [_section(name, things) for name in things if things.get(name).spec.kind == kind]
    return "\n".join([f"## {title}\n", *sections]) if sections else ""


def _section(name: str, things: Any) -> str:
    thing = things.get(name)
    spec, doc = thing.spec, inspect.cleandoc(thing.__doc__ or "")
    facts = [
        f"*Source* ({spec.evidence}): {spec.source}",
        f"*Also called*: {', '.join(f'`{alias}`' for alias in things.aliases(name))}" if things.aliases(name) else "",
        f"*Same function as* `{spec.same_as}`, with other constants" if spec.same_as else "",
        f"*Needs*: {', '.join(f'`{need}`' for need in needs(thing)) or 'the policy alone'}",
        "*Couples the batch*: accumulation replays it" if spec.coupling else "",
        f"*Reduces to*: {_paragraph(doc, 'Reduces to:')}",
        f"*Verified*: {_verified(name)}",
    ]
    summary, formulas = doc.partition("\n\n")[0].replace("\n", " "), _formulas(doc)
    parts = [
        f"({_anchor(name)})=\n### {name}\n",
        summary + "\n",
        *formulas,
        "\n".join(f"- {fact}" for fact in facts if fact),
    ]
    return "\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    return f"objective-{name.replace('_', '-')}"


def _formulas(doc: str) -> list[str]:
    """Return the display formulas of a docstring."""
    found = re.findall(r"^\.\. math::[ \t]*(.*?)(?=\n\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    return [f"$$\n{textwrap.dedent(formula).strip()}\n$$\n" for formula in found]


def _paragraph(doc: str, start: str) -> str:
    text = re.sub(r"\s+", " ", doc.partition(start)[2].partition("\n\n")[0]).strip()
    return text.replace("``", "`")


def _verified(name: str) -> str:
    cases = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    origins = dict.fromkeys(case["origin"] for case in cases)
    return "; ".join(origins)


if __name__ == "__main__":
    PAGE.write_text(objectives_page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes\n")

"""Write ``docs/coverage.md``: every method id of the specifications, and where it is or why it waits.

    python docs/covered.py

The ids are committed in ``docs/coverage/*.yaml``, a file for each document that specifies methods. A test looks up what
is claimed there: names in the registries, files in the tree, golden numbers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from diffpref.cli.registries import registry

__all__ = ["DOCUMENTS", "PAGE", "Method", "coverage", "distinct_functions", "listed"]

HERE = Path(__file__).resolve().parent
ROOT, PAGE = HERE.parent, HERE / "coverage.md"
DOCUMENTS = {
    "text_pairwise": "Text: pairs and single examples",
    "text_structured": "Text: tokens, lists, games, loops, diagnostics",
    "diffusion_pairwise": "Diffusion: pairs and likelihoods",
    "diffusion_variants": "Diffusion: lists, captions, video, audio",
    "diffusion_more": "Diffusion: more methods, vision-language, online",
    "rewards_data_eval": "Rewards, data, evaluation",
    "ours": "Ours",
}
"""File of ids -> what it is about."""


@dataclass(frozen=True)
class Method:
    """One id of a document.

    Args:
        id: as the document spells it.
        title: of the paper or procedure.
        objectives: its pure losses, by registry name or alias.
        files: where its procedure lies, from the root of the repository.
        tests: of the procedure.
        waits: what is missing and why; ``""`` where nothing is.
    """

    id: str
    title: str
    objectives: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    waits: str = ""


def listed(document: str) -> list[Method]:
    """Return the ids of a document."""
    rows = yaml.safe_load((HERE / "coverage" / f"{document}.yaml").read_text(encoding="utf-8"))
    return [Method(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows]


def distinct_functions() -> int:
    """Count the objectives that compute something of their own: one function with other constants counts once."""
    objectives = registry("objectives")
    return sum(not objectives.get(name).spec.same_as for name in objectives)


def coverage() -> str:
    """Return the page."""
    methods = {document: listed(document) for document in DOCUMENTS}
    every = [method for rows in methods.values() for method in rows]
    waiting = [method for method in every if method.waits]
    here = [method for method in every if method.objectives or method.files]
    head = (
        "# Coverage\n\nEvery method id of the six documents that specify diffpref, our own parts, and where each is."
        " Pure losses are objectives: each has golden numbers (`tests/golden/objectives`), a second form in numpy"
        " (`tests/objectives/references`) and the common suite (`tests/objectives`). This page is made by"
        " `python docs/covered.py` from `docs/coverage/*.yaml`, and a test looks up what it claims.\n\n"
        f"{len({method.id for method in every})} ids; {len({m.id for m in here})} are here, in whole or in part;"
        f" {len({m.id for m in waiting})} wait for something. The registry holds {len(registry('objectives').names())}"
        f" objectives, {distinct_functions()} of them distinct functions.\n"
    )
    return "\n".join([head, *(_section(DOCUMENTS[document], rows) for document, rows in methods.items())])


def _section(title: str, rows: list[Method]) -> str:
    lines = [f"## {title}\n", "| id | objectives | procedure | tests | waits for |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [_code(row.objectives), _code(row.files), _code(_tests(row)), row.waits]
        lines.append(f"| `{row.id}`: {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _tests(row: Method) -> tuple[str, ...]:
    objectives = registry("objectives")
    golden = dict.fromkeys(f"golden/objectives/{objectives.canonical(name)}.json" for name in row.objectives)
    return (*golden, *(test.removeprefix("tests/") for test in row.tests))


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(coverage(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes\n")

"""The report as Markdown: ``report.md``, for repositories and model cards."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.sheets import Sheet

__all__ = ["markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def markdown(
    title: str,
    lead: Sequence[str],
    sheets: Sequence[Sheet],
    warnings: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    provenance: Provenance | None = None,
) -> str:
    """Return the report as Markdown.

    Args:
        title: of the page.
        lead: the findings, a sentence each.
        sheets: the tables.
        warnings: what a reader should know first.
        facts: what the numbers depend on: name and value.
        provenance: how they were made.
    """
    parts = [f"# {_text(title)}", *map(_text, lead), *(f"**Note.** {_text(one)}" for one in warnings)]
    for sheet in sheets:
        parts += [f"## {_text(sheet.title)}", _text(sheet.note), _table(sheet)]
    parts += ["## Setting", _table(Sheet("", ("what", "value"), tuple(facts)))] if facts else []
    if provenance and provenance.command:
        fence = "`" * max(3, *(len(run) + 1 for run in [*re.findall(r"`+", provenance.command), ""]))
        parts += ["## How it was made", f"{fence}text\n{provenance.command}\n{fence}"]
    if provenance and provenance.versions:
        parts.append(_table(Sheet("", ("library", "version"), tuple(provenance.versions.items()))))
    return "\n\n".join(filter(None, parts)) + "\n"


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(sheet: Sheet) -> str:
    lines = [sheet.heads, ("---",) * len(sheet.heads), *sheet.rows]
    return "\n".join(
        f"| {' | '.join(cells if number == 1 else tuple(map(_text, cells)))} |" for number, cells in enumerate(lines)
    )

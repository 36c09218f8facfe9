"""A comparison as a table for the terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from diffpref.evaluation.headline import Row, fact_rows, headline, sentence
from diffpref.evaluation.results import Comparison

__all__ = ["print_summary", "summary"]

HEADS = ("measure", "base", "aligned", "difference", "win rate", "win / tie / loss", "reading")
STYLES = {"better": "green", "worse": "red", "undecided": "dim"}


def _cells(row: Row) -> tuple[str, ...]:
    return (row.measure, row.base, row.aligned, row.difference, row.win_rate, row.counts, row.reading)


def summary(comparison: Comparison) -> str:
    """Return a plain-text table: the headline, then each fact, then how to read it."""
    tables = [[_cells(row) for row in rows] for rows in (headline(comparison), fact_rows(comparison)) if rows]
    widths = [max(map(len, column)) for column in zip(HEADS, *(row for table in tables for row in table), strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        first, *rest = (
            cell.ljust(w) if i in (0, 6) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *rest)).rstrip()

    rule = "-" * len("  ".join("-" * width for width in widths))
    lines = [sentence(comparison), "", line(HEADS)]
    for table in tables:
        lines += [rule, *map(line, table)]
    return "\n".join([*lines, rule, _note(comparison)]) + "\n"


def _note(comparison: Comparison) -> str:
    dropped = sum(judge.win.dropped for judge in comparison.judges)
    note = (
        f"{100 * comparison.level:g} % paired bootstrap intervals over {comparison.num_prompts:,} prompts, "
        f"{comparison.num_draws:,} draws; ties count one half."
    )
    return f"{note} {dropped} scores of pairs were not finite and left out." if dropped else note


def print_summary(comparison: Comparison, file: TextIO | None = None) -> str:
    """Write the table, in colour where ``file`` is a terminal, and return its plain text.

    Args:
        comparison: what was found.
        file: standard output by default.
    """
    file = sys.stdout if file is None else file
    text = summary(comparison)
    if not file.isatty():
        file.write(text)
        return text
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADS, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for rows in (headline(comparison), fact_rows(comparison)):
        for row in rows:
            *cells, verdict = map(Text, _cells(row))
            table.add_row(*cells, Text(verdict.plain, style=STYLES[verdict.plain]))
        table.add_section()
    console = Console(file=file)
    console.print(Text(sentence(comparison)), table, Text(_note(comparison), style="dim"), sep="\n\n")
    return text

"""A comparison as a table for the terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from diffpref.evaluation.compare import comparison
from diffpref.evaluation.headline import TIES, Row, fact_rows, headline, sentence
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.standings import Standings

__all__ = ["print_standings", "print_summary", "summary"]

HEADS = ("difference", "win rate", "win / tie / loss", "reading")
STYLES = {"better": "green", "worse": "red", "undecided": "dim"}


def _cells(row: Row) -> tuple[str, ...]:
    return (row.measure, row.base, row.aligned, row.difference, row.win_rate, row.counts, row.reading)


def summary(found: Comparison) -> str:
    """Return a plain-text table: the headline, then each fact, then how to read it."""
    tables = [[_cells(row) for row in rows] for rows in (headline(found), fact_rows(found)) if rows]
    heads = ("measure", *found.names, *HEADS)
    widths = [max(map(len, column)) for column in zip(heads, *(row for table in tables for row in table), strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        first, *rest = (
            cell.ljust(w) if i in (0, 6) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *rest)).rstrip()

    rule = "-" * len("  ".join("-" * width for width in widths))
    lines = [sentence(found), "", line(heads)]
    for table in tables:
        lines += [rule, *map(line, table)]
    return "\n".join([*lines, rule, _note(found)]) + "\n"


def _note(found: Comparison) -> str:
    dropped = sum(judge.dropped for judge in found.judges)
    note = (
        f"{100 * found.level:g} % paired bootstrap intervals over {found.num_prompts:,} prompts, "
        f"{found.num_draws:,} draws; ties count {TIES[found.ties]}."
    )
    return f"{note} {dropped} scores of pairs were not finite and left out." if dropped else note


def print_summary(found: Comparison, file: TextIO | None = None) -> str:
    """Write the table, in colour where ``file`` is a terminal, and return its plain text.

    Args:
        found: what is told.
        file: standard output by default.
    """
    file = sys.stdout if file is None else file
    text = summary(found)
    if not file.isatty():
        file.write(text)
        return text
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("measure", *found.names, *HEADS, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for rows in (headline(found), fact_rows(found)):
        for row in rows:
            *cells, verdict = map(Text, _cells(row))
            table.add_row(*cells, Text(verdict.plain, style=STYLES.get(verdict.plain, "dim")))
        table.add_section()
    console = Console(file=file)
    console.print(Text(sentence(found)), table, Text(_note(found), style="dim"), sep="\n\n")
    return text


def print_standings(standings: Standings, file: TextIO | None = None) -> None:
    """Write a table for each contender that is compared; see `print_summary`."""
    for number, name in enumerate(standings.others):
        if number:
            print(file=file)
        print_summary(comparison(standings, name), file)

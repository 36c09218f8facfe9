"""What a training run came to, for the terminal: where it began, where it ended, how fast, and what it left."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

__all__ = ["print_run_summary", "summary_rows"]

Row = tuple[str, str, str]

HEAD = ("", "begin", "end")
LAST = 20  # lines in one mean: single updates are noise
WHAT = {
    "loss": "loss",
    "rewards/accuracies": "accuracy (chosen above rejected)",
    "rewards/margins": "margin of implicit rewards",
    "errors/chosen_vs_reference": "chosen error against the reference",
    "errors/rejected_vs_reference": "rejected error against the reference",
    "grad_norm": "gradient norm",
}
"""Metric -> what it is called here."""


def summary_rows(metrics: Sequence[Mapping[str, float]]) -> list[Row]:
    """Return (measure, begin, end) for what the log holds: means of up to 20 lines each; last values of ``eval/``."""
    begin, end = metrics[:LAST], metrics[-LAST:]
    rows = [(text, _mean(begin, name), _mean(end, name)) for name, text in WHAT.items()]
    judged = [row for row in metrics if any(name.startswith("eval/") for name in row)]
    for name in dict.fromkeys(name for row in judged for name in row if name.startswith("eval/")):
        rows.append((f"validation: {name.removeprefix('eval/')}", _mean(judged[:1], name), _mean(judged[-1:], name)))
    rows.append(("images a second", _mean(begin, "perf/images_per_second"), _mean(end, "perf/images_per_second")))
    peak = max((row["perf/memory_bytes"] for row in metrics if "perf/memory_bytes" in row), default=0)
    if peak:
        rows.append(("memory, most", "", f"{peak / 2**30:.2f} GiB"))
    return [row for row in rows if row[2]]


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    return f"{sum(values) / len(values):.4g}" if values else ""


def print_run_summary(metrics: Sequence[Mapping[str, float]], lines: Sequence[str], file: TextIO | None = None) -> None:
    """Print the table, then lines: with rich on a terminal, as plain text into a pipe.

    Args:
        metrics: lines of the log.
        lines: printed below.
        file: not given: standard output.
    """
    file = file or sys.stdout
    rows = summary_rows(metrics)
    if rows and file.isatty():
        _rich(rows, file)
    elif rows:
        rows.insert(0, HEAD)
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for what, begin, end in rows:
            print(f"{what:{widths[0]}}  {begin:>{widths[1]}}  {end:>{widths[2]}}", file=file)
    for line in lines:
        print(line, file=file)


def _rich(rows: Sequence[Row], file: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in HEAD:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(*row)
    Console(file=file).print(table)

"""The table of an evaluation: every contender by every measure, with intervals, and prompt category by category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from diffpref.evaluation.measures import by_category
from diffpref.evaluation.standings import Column, Standings
from diffpref.evaluation.statistics import (
    Interval,
    WinRate,
    bootstrap_interval,
    difference,
    wilson_interval,
    win_points,
    win_rate,
)

__all__ = ["ALL_FACTS", "FACTS_RIGHT", "Entry", "Macro", "Share", "Table", "make_table"]

FACTS_RIGHT, ALL_FACTS = "facts right", "all facts right"
"""The number of facts that hold, as if it were a judge's score; and whether all of them do."""


@dataclass(frozen=True)
class Entry:
    """What a measure says of a contender. Numbers are over its finite scores, comparisons over pairs of such.

    Args:
        contender: whose.
        measure: judge, or `FACTS_RIGHT`.
        count: finite scores.
        not_finite: scores that were NaN or infinite, and are left out.
        mean: of the scores; None where none is finite.
        median: likewise.
        std: likewise, with n - 1; 0 for a single one.
        win: against the reference contender; None for itself, or where no pair is finite on both sides.
        wilson: the win rate with its Wilson interval, which takes pairs as independent, also where prompts repeat.
        mean_difference: of the paired scores, with its bootstrap interval.
        median_difference: the median of the paired differences, likewise.
        categories: axis -> label -> the win rate among the prompts that bear it.
        means: axis -> label -> the mean score of the prompts that bear it, and have one.
    """

    contender: str
    measure: str
    count: int
    not_finite: int
    mean: float | None
    median: float | None
    std: float | None
    win: WinRate | None = None
    wilson: Interval | None = None
    mean_difference: Interval | None = None
    median_difference: Interval | None = None
    categories: dict[str, dict[str, WinRate]] = field(default_factory=dict)
    means: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Macro:
    """The unweighted mean of a contender's win rates over all judges.

    Args:
        contender: whose.
        rate: with its bootstrap interval, over the pairs to which every judge gave finite scores.
        count: how many these are.
    """

    contender: str
    rate: Interval
    count: int


@dataclass(frozen=True)
class Share:
    """How often a fact holds in a contender's pictures.

    Args:
        contender: whose.
        fact: which; `ALL_FACTS` stands for all of them in one picture.
        share: 0..1.
        difference: from the reference contender in percentage points; None for itself.
    """

    contender: str
    fact: str
    share: float
    difference: Interval | None = None


@dataclass(frozen=True)
class Table:
    """Everything that is derived from `Standings`: the same numbers in JSON, Markdown and HTML."""

    entries: tuple[Entry, ...]
    macros: tuple[Macro, ...]
    shares: tuple[Share, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    def of(self, contender: str) -> list[Entry]:
        """Return a contender's row."""
        return [entry for entry in self.entries if entry.contender == contender]


def make_table(standings: Standings) -> Table:
    """Compute every number of the report; equal standings give equal tables.

    A judge without one finite score of a contender leaves that entry blank, but for the count, and costs no other.
    """
    entries, macros, shares = [], [], []
    for name in standings.columns:
        entries += [_entry(standings, name, measure) for measure in _measures(standings)]
        if name != standings.against and len(standings.judges) > 1 and (macro := _macro(standings, name)):
            macros.append(macro)
        shares += _shares(standings, name)
    return Table(tuple(entries), tuple(macros), tuple(shares))


def _measures(standings: Standings) -> list[str]:
    facts = next(iter(standings.columns.values())).facts
    return [*([FACTS_RIGHT] if facts else []), *standings.judges]


def _values(column: Column, measure: str) -> np.ndarray:
    """Return (N,) float64 numbers; NaN where there is no score."""
    if measure == FACTS_RIGHT and column.facts:
        return np.array(list(column.facts.values()), dtype=float).sum(axis=0)
    return np.array(column.scores[measure], dtype=float)


def _options(standings: Standings) -> dict[str, Any]:
    return {"num_draws": standings.num_draws, "level": standings.level, "seed": standings.seed}


def _entry(standings: Standings, name: str, measure: str) -> Entry:
    values = _values(standings.columns[name], measure)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Entry(name, measure, 0, len(values), None, None, None, means=_means(standings, values))
    told = Entry(
        name,
        measure,
        len(finite),
        len(values) - len(finite),
        float(finite.mean()),
        float(np.median(finite)),
        float(finite.std(ddof=1)) if len(finite) > 1 else 0.0,
        means=_means(standings, values),
    )
    other = _values(standings.columns[standings.against], measure)
    if name == standings.against or not (np.isfinite(values) & np.isfinite(other)).any():
        return told
    options = {"groups": list(standings.prompts), **_options(standings)}
    win = win_rate(values, other, ties=standings.ties, **options)
    return replace(
        told,
        win=win,
        wilson=wilson_interval(win.rate, win.wins + win.ties + win.losses, standings.level),
        mean_difference=difference(values, other, scale=1.0, **options),
        median_difference=difference(values, other, scale=1.0, statistic=np.median, **options),
        categories=_by_category(standings, values, other),
    )


def _rows(labels: Sequence[Sequence[str]], usable: np.ndarray) -> dict[str, list[int]]:
    """Return label -> the prompts that bear it, for labels of which one prompt is usable."""
    found: dict[str, list[int]] = {}
    for row, several in enumerate(labels):
        for label in dict.fromkeys(several):
            found.setdefault(label, []).append(row)
    return {label: rows for label, rows in found.items() if usable[rows].any()}


def _by_category(standings: Standings, values: np.ndarray, other: np.ndarray) -> dict[str, dict[str, WinRate]]:
    """Return the win rate among the prompts of each label that has a pair of finite scores."""

    def of(rows: list[int]) -> WinRate:
        groups = [standings.prompts[row] for row in rows]
        return win_rate(values[rows], other[rows], groups, ties=standings.ties, **_options(standings))

    finite = np.isfinite(values) & np.isfinite(other)
    return {axis: by_category(_rows(labels, finite), of) for axis, labels in standings.categories.items()}


def _means(standings: Standings, values: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the mean score of the prompts of each label that has a finite one."""
    finite = np.isfinite(values)

    def of(rows: list[int]) -> float:
        return float(values[rows][finite[rows]].mean())

    return {axis: by_category(_rows(labels, finite), of) for axis, labels in standings.categories.items()}


def _shares(standings: Standings, name: str) -> list[Share]:
    column, other = standings.columns[name], standings.columns[standings.against]
    told = []
    for fact in [*([ALL_FACTS] if column.facts else []), *column.facts]:
        here, there = (_holds(one, fact) for one in (column, other))
        gap = None
        if name != standings.against:
            gap = difference(here, there, list(standings.prompts), **_options(standings))
        told.append(Share(name, fact, float(here.mean()), gap))
    return told


def _holds(column: Column, fact: str) -> np.ndarray:
    if fact == ALL_FACTS:
        return np.asarray(np.array(list(column.facts.values()), dtype=bool).all(axis=0))
    return np.array(column.facts[fact], dtype=bool)


def _macro(standings: Standings, name: str) -> Macro | None:
    column, other = standings.columns[name], standings.columns[standings.against]
    ours, theirs = (np.stack([_values(one, judge) for judge in standings.judges]) for one in (column, other))
    kept = (np.isfinite(ours) & np.isfinite(theirs)).all(axis=0)
    if not kept.any():
        return None
    points = win_points(ours[:, kept], theirs[:, kept], standings.ties).mean(axis=0)
    groups: Sequence[str] = [prompt for prompt, keep in zip(standings.prompts, kept, strict=True) if keep]
    return Macro(name, bootstrap_interval(points, groups=groups, **_options(standings)), int(kept.sum()))

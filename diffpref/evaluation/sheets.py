"""The numbers of an evaluation as tables of text, which page, Markdown and terminal show alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpref.evaluation.headline import TIES, number, percent, reading, words
from diffpref.evaluation.measures import macro_average
from diffpref.evaluation.published import COMPARABLE, as_published, published_rows
from diffpref.evaluation.standings import Column, Standings
from diffpref.evaluation.statistics import Interval, WinRate
from diffpref.evaluation.table import Entry, Table

__all__ = ["Sheet", "make_sheets"]


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Args:
        title: of the table.
        heads: one a column.
        rows: of as many cells; the first names the row.
        note: how to read it, in sentences.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def make_sheets(standings: Standings, table: Table) -> list[Sheet]:
    """Return the tables for which there are numbers."""
    made = [
        _scores(standings, table),
        _macros(standings, table),
        _shares(standings, table),
        *_categories(standings, table),
        *_means(standings, table),
        _probes(standings),
        _whole(standings),
        _published(standings, table),
    ]
    return [sheet for sheet in made if sheet.rows]


def _range(low: float, high: float, places: int = 1, factor: float = 100.0) -> str:
    return f"[{factor * low:.{places}f}, {factor * high:.{places}f}]"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    largest = max(abs(interval.low), abs(interval.high), abs(interval.estimate))
    told = (number(v, significant=3, like=largest, sign=True) for v in (interval.estimate, interval.low, interval.high))
    estimate, low, high = told
    return f"{estimate} [{low}, {high}]"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _win(win: WinRate) -> str:
    return f"{percent(win.rate)} {_range(win.low, win.high)}"


def _scores(standings: Standings, table: Table) -> Sheet:
    def row(entry: Entry) -> tuple[str, ...]:
        win, wilson = entry.win, entry.wilson
        plain = tuple("" if one is None else number(one) for one in (entry.mean, entry.median, entry.std))
        missing = str(entry.not_finite) if entry.not_finite else ""
        if win is None or wilson is None:
            return (entry.contender, words(entry.measure), *plain, "", "", "", "", "", "", missing, "")
        return (
            entry.contender,
            words(entry.measure),
            *plain,
            _interval(entry.mean_difference),
            _interval(entry.median_difference),
            _win(win),
            _range(wilson.low, wilson.high),
            _p(win.sign_test_p),
            f"{win.wins} / {win.ties} / {win.losses}",
            missing,
            reading(win.low, win.high, 0.5),
        )

    level = f"{100 * standings.level:g} %"
    heads = ("contender", "measure", "mean", "median", "std", "mean difference", "median difference", "win rate",
             "Wilson", "sign test p", "win / tie / loss", "not finite", "reading")  # fmt: skip
    note = (
        f"Differences, wins and losses are against {standings.against}, pair by pair: {len(standings.prompts):,} pairs"
        f" of {standings.num_prompts:,} prompts. In brackets {level} intervals: of differences and win rates by the"
        f" bootstrap over prompts ({standings.num_draws:,} draws); Wilson's and the sign test take pairs as"
        f" independent. Ties count {TIES[standings.ties]}. Scores that are not finite are left out and counted."
    )
    return Sheet("All contenders", heads, tuple(map(row, table.entries)), note)


def _macros(standings: Standings, table: Table) -> Sheet:
    rows = tuple(
        (one.contender, percent(one.rate.estimate), _range(one.rate.low, one.rate.high), f"{one.count:,}")
        for one in table.macros
    )
    note = f"The unweighted mean of the win rates over {len(standings.judges)} judges, against {standings.against}."
    return Sheet("Mean over judges", ("contender", "win rate", "interval", "pairs"), rows, note)


def _shares(standings: Standings, table: Table) -> Sheet:
    facts = list(dict.fromkeys(share.fact for share in table.shares))
    found = {(share.contender, share.fact): share for share in table.shares}

    def cell(name: str, fact: str) -> str:
        share = found[name, fact]
        gap = share.difference
        return percent(share.share) + (f" ({gap.estimate:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}])" if gap else "")

    rows = tuple((words(fact), *(cell(name, fact) for name in standings.columns)) for fact in facts)
    note = (
        f"{standings.noun.capitalize()} in which a fact of the caption holds; in parentheses percentage points from"
        f" {standings.against}."
    )
    return Sheet("Facts", ("fact", *standings.columns), rows, note)


def _categories(standings: Standings, table: Table) -> Iterable[Sheet]:
    found = {(entry.contender, entry.measure): entry for entry in table.entries if entry.win}
    measures = list(dict.fromkeys(measure for _, measure in found))
    for axis, labels in standings.categories.items():
        rows = []
        for label in dict.fromkeys(label for several in labels for label in several):
            count = sum(label in several for several in labels)
            for name in standings.others:
                wins = [
                    found[name, one].categories[axis].get(label) if (name, one) in found else None for one in measures
                ]
                rows.append((label, f"{count:,}", name, *(_win(win) if win else "" for win in wins)))
        note = f"Win rates against {standings.against} among the prompts of each {words(axis)}."
        yield Sheet(f"By {words(axis)}", (words(axis), "pairs", "contender", *map(words, measures)), tuple(rows), note)


def _means(standings: Standings, table: Table) -> Iterable[Sheet]:
    """Yield the mean scores by label, which is how GenEval and the HPSv2 benchmark are told."""
    for axis, labels in standings.categories.items():
        rows = []
        for label in dict.fromkeys(label for several in labels for label in several):
            count = sum(label in several for several in labels)
            for name in standings.columns:
                means = [entry.means[axis].get(label) for entry in table.of(name)]
                rows.append((label, f"{count:,}", name, *("" if one is None else number(one) for one in means)))
        for name in standings.columns if rows else ():
            overall = [macro_average(one) if (one := entry.means[axis]) else None for entry in table.of(name)]
            told = ("" if one is None else number(one) for one in overall)
            rows.append(("mean of the above", "", name, *told))
        measures = tuple(words(entry.measure) for entry in table.of(standings.against))
        note = f"The last lines count every {words(axis)} once, however many prompts it has."
        yield Sheet(f"Means by {words(axis)}", (words(axis), "pictures", "contender", *measures), tuple(rows), note)


def _probes(standings: Standings) -> Sheet:
    names = list(dict.fromkeys(name for column in standings.columns.values() for name in column.probes))

    def cell(column: Column, name: str) -> str:
        values = np.array(column.probes.get(name, ()), dtype=float)
        values = values[np.isfinite(values)]
        return number(float(values.mean())) if len(values) else ""

    rows = tuple((name, *(cell(column, probe) for probe in names)) for name, column in standings.columns.items())
    note = (
        f"Means over {standings.noun} of what a judge may be fooled by. A contender that wins and has moved far from"
        f" the base in one of them may have found a weakness of the judge; look at its {standings.noun}."
    )
    return Sheet("Probes", ("contender", *map(words, names)), rows if names else (), note)


def _whole(standings: Standings) -> Sheet:
    names = list(dict.fromkeys(name for column in standings.columns.values() for name in column.whole))

    def cell(column: Column, name: str) -> str:
        return number(column.whole[name]) if name in column.whole else ""

    rows = tuple((name, *(cell(column, one) for one in names)) for name, column in standings.columns.items())
    note = WHOLE if standings.noun == "pictures" else WHOLE_OF_CLIPS
    return Sheet("Distance from the base", ("contender", *map(words, names)), rows if names else (), note)


def _section(setting: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of the setting; nothing where somebody told it in words."""
    found = setting.get(name)
    return found if isinstance(found, Mapping) else {}


WHOLE = (
    "Prediction drift: mean squared difference of the noise that contender and base predict in the same noised pictures"
    " of the base; it stands in for the KL divergence from the base. Denoising error: against the noise that is there."
    " Frechet distance: of the judge's embeddings of the pictures from those of the base's, comparable for equal counts"
    " only. Diversity: mean cosine distance of the pictures of one prompt; a model that hacks its reward draws the same"
    " picture for every seed."
)


WHOLE_OF_CLIPS = (
    "Prediction drift: mean squared difference of the noise that contender and base predict in the same noised clips of"
    " the base; it stands in for the KL divergence from the base. Denoising error: against the noise that is there."
    " Frechet distance and diversity are measures of single pictures here and are not told of clips."
)


def _published(standings: Standings, table: Table) -> Sheet:
    """Return the papers' numbers with ours among them, where the base is of an architecture that they report on."""
    base, asked = (_section(standings.setting, name) for name in ("base", "prompts"))
    rows = published_rows(str(base.get("architecture")))
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    told = [
        (row.model, row.setting.letter, *(f"{row.values[name]:g}" if name in row.values else "" for name in names))
        for row in rows
    ]
    prompts = asked.get("name", "prompts of its own")
    for name in standings.columns if rows else ():
        found = {
            entry.measure: as_published(entry, standings.judges.get(entry.measure, "")) for entry in table.of(name)
        }
        means = [found.get(measure) for measure in names]
        ours = ("" if mean is None else number(mean) for mean in means)
        told.append((f"ours: {name}", f"ours: {prompts}, means", *ours))
    settings = dict.fromkeys(str(row.setting) for row in rows)
    return Sheet("Published numbers", ("model", "setting", *names), tuple(told), " ".join([COMPARABLE, *settings]))

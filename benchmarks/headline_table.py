"""What `headline_methods.py` has found: intervals over seeds and captions, and the section of a track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from headline_tracks import Track

from diffpref.core.randomness import Random

__all__ = ["ALL", "Cells", "Found", "beats", "compared", "curve_point", "gain", "page", "two_way"]

DRAWS = 10_000
ALL, MOVED = "1", "dynamic_degree"


@dataclass(frozen=True)
class Found:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def told(self, scale: float = 1.0, sign: str = "+", digits: int = 1) -> str:
        """Return it in words, times ``scale``."""
        return "{:{s}.{d}f} [{:{s}.{d}f}, {:{s}.{d}f}]".format(
            *(scale * value for value in (self.mean, self.low, self.high)), s=sign, d=digits
        )


def two_way(values: np.ndarray, draws: int = DRAWS) -> Found:
    """Return the mean of (S, P) values, seeds by captions, with its interval when both are drawn again.

    Every resample takes S of the seeds and P of the captions, with replacement, and all cells where they meet.
    """
    generator = Random(0).numpy("headline methods")
    seeds, captions = (generator.multinomial(size, np.full(size, 1 / size), size=draws) / size for size in values.shape)
    means = np.einsum("ds,sp,dp->d", seeds, values, captions)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(values.mean())
    return Found(mean, min(float(low), mean), max(float(high), mean))


def facts(judged: Mapping[str, Any]) -> np.ndarray:
    """Return (N, facts) 0 or 1 of what was judged."""
    return np.array([[int(held) for held in column] for column in judged["facts"].values()], dtype=float).T


def gain(base: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """Return by how much the share of facts that hold is larger than the base's, on the samples of both."""
    ours = facts(found)
    return float((ours - facts(base)[: len(ours)]).mean())


@dataclass(frozen=True)
class Cells:
    """What is read from the results of a track.

    Args:
        results: of the track.
        draws: samples of each caption and seed, which are averaged.
    """

    results: Mapping[str, Any]
    draws: int = 1

    @property
    def seeds(self) -> list[str]:
        """Seeds that every row has run for."""
        rows = self.results["runs"].values()
        return [seed for seed in self.results["base"] if rows and all(seed in runs for runs in rows)]

    def judged(self, name: str, mark: str = ALL) -> list[Mapping[str, Any]]:
        """Return what was said of a row, or of the base, seed by seed."""
        if name == "base":
            return [self.results["base"][seed] for seed in self.seeds]
        return [self.results["runs"][name][seed]["marks"][mark] for seed in self.seeds]

    def table(self, name: str, what: str = "right", mark: str = ALL) -> np.ndarray:
        """Return (S, P) numbers: ``right``: all facts hold; ``facts``: their share; a fact; or a score."""
        rows = []
        for judged in self.judged(name, mark):
            if what in judged["scores"]:
                values = np.array(judged["scores"][what])
            elif what in judged["facts"]:
                values = np.array([float(held) for held in judged["facts"][what]])
            else:
                values = facts(judged).all(1).astype(float) if what == "right" else facts(judged).mean(1)
            rows.append(values.reshape(-1, self.draws).mean(1))
        return np.array(rows)

    def difference(
        self, name: str, what: str = "right", against: str = "base", marks: tuple[str, str] = (ALL, ALL)
    ) -> Found:
        """Return a row minus another, on the captions of both."""
        ours, theirs = self.table(name, what, marks[0]), self.table(against, what, marks[1])
        size = min(ours.shape[1], theirs.shape[1])
        return two_way(ours[:, :size] - theirs[:, :size])

    def wins(self, name: str, judge: str, against: str = "base") -> Found:
        """Return how often a judge prefers a row; a tie is half a win."""
        pairs = zip(self.judged(name), self.judged(against), strict=True)
        points = [
            (np.sign(np.array(ours["scores"][judge]) - np.array(theirs["scores"][judge])) + 1) / 2
            for ours, theirs in pairs
        ]
        return two_way(np.array(points).reshape(len(points), -1, self.draws).mean(2))

    def mean(self, name: str, key: str) -> float:
        """Return the mean over seeds of a number of a row's runs."""
        runs = [self.results["runs"][name][seed] for seed in self.seeds]
        return float(np.mean([run[key] if key in run else run["marks"][ALL][key] for run in runs]))

    @property
    def judges(self) -> list[str]:
        """Scores that compare samples of a caption."""
        return [name for name in self.judged("base")[0]["scores"] if name != MOVED]


def beats(cells: Cells, name: str) -> bool:
    """Whether a row is better than the base with the whole interval."""
    return cells.difference(name).low > 0


# ------------------------------------------------------------ the page


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    told = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in told) + "\n"


def main_table(track: Track, cells: Cells) -> str:
    """Return a row a method: what was spent, and how far it got."""
    moves = MOVED in cells.judged("base")[0]["scores"]
    head = ["row", "beta", "learning rate", "updates", "forwards", "all facts right, %: base -> result"]
    head += ["difference, points", *(f"{judge}: wins, %" for judge in cells.judges), "seconds a run"]
    head += ["moves, pixels a frame: difference"] if moves else []
    rows = []
    for name in track.rows:
        run = cells.results["runs"][name][cells.seeds[0]]
        share = f"{100 * cells.table('base').mean():.1f} -> {100 * cells.table(name).mean():.1f}"
        told = [f"`{name}`", f"{run['beta']:g}", f"{run['rate']:g}"]
        told += [f"{cells.mean(name, key):,.0f}" for key in ("updates", "forwards")]
        told += [share, cells.difference(name).told(100)]
        told += [cells.wins(name, judge).told(100, "") for judge in cells.judges]
        told += [f"{cells.mean(name, 'cpu_seconds'):.0f}"]
        rows.append(told + ([cells.difference(name, MOVED).told(digits=2)] if moves else []))
    return _lines(head, rows)


def fact_table(track: Track, cells: Cells) -> str:
    """Return which facts hold how often, in percent."""
    names = list(cells.judged("base")[0]["facts"])
    rows = [
        [f"`{name}`", *(f"{100 * cells.table(name, fact).mean():.1f}" for fact in ("facts", *names))]
        for name in ("base", *track.rows)
    ]
    return _lines(["facts that hold, %", "all together", *names], rows)


def curve_table(track: Track, cells: Cells) -> str:
    """Return the gain after shares of the budget."""
    named = [name for name, row in track.rows.items() if row.curve]
    rows = []
    for name in named:
        for mark in cells.results["runs"][name][cells.seeds[0]]["marks"]:
            spent = [judged["forwards"] for judged in cells.judged(name, mark)]
            done = [judged["updates"] for judged in cells.judged(name, mark)]
            right = curve_point(track, cells, name, mark)
            rows.append([f"`{name}`", f"{np.mean(spent):,.0f}", f"{np.mean(done):.0f}", right.told(100)])
    return _lines(["row", "forwards", "updates", "difference to the base, points"], rows)


def curve_point(track: Track, cells: Cells, name: str, mark: str) -> Found:
    """Return the gain on the captions of the curve, the same ones at every mark."""
    ours, base = (cells.table(which, "right", at)[:, : track.curve] for which, at in ((name, mark), ("base", ALL)))
    return two_way(ours - base)


def compared(track: Track, cells: Cells) -> str:
    """Return rows against rows, on the same captions and seeds."""
    moves = MOVED in cells.judged("base")[0]["scores"]
    head = ["asked", "difference", "all facts right, points", "facts, points"]
    head += ["moves, pixels a frame"] if moves else []
    rows = []
    for one in track.compared:
        marks = (one.mark, one.against_mark)
        right = cells.difference(one.name, "right", one.against, marks)
        share = cells.difference(one.name, "facts", one.against, marks)
        at = [
            f"`{name}`{'' if mark == ALL else f' at {float(mark):.0%}'}"
            for name, mark in zip((one.name, one.against), marks, strict=True)
        ]
        told = [one.asked, f"{at[0]} minus {at[1]}", right.told(100), share.told(100)]
        rows.append(told + ([cells.difference(one.name, MOVED, one.against, marks).told(digits=2)] if moves else []))
    return _lines(head, rows)


def search_table(track: Track, cells: Cells) -> str:
    """Return the gain of every setting of the search, in points of facts that hold."""
    settings = [f"beta {beta:g}, {rate:g}" for beta, rate in track.grid]
    rows = []
    for name, tried in cells.results["search"].items():
        best = max(one["gain"] for one in tried)
        told = [f"{100 * one['gain']:+.1f}" for one in tried]
        marked = [f"**{word}**" if one["gain"] == best else word for word, one in zip(told, tried, strict=True)]
        rows.append([f"`{name}`", *marked])
    return _lines(["search: facts, points", *settings], rows)


def page(name: str, track: Track, results: Mapping[str, Any]) -> str:
    """Return the section of a track."""
    cells = Cells(results, track.draws)
    pairs = cells.table("base").size * track.draws
    won = [row for row, told in track.rows.items() if not told.control and beats(cells, row)]
    count = sum(not row.control for row in track.rows.values())
    minutes = sum(run["cpu_seconds"] for runs in results["runs"].values() for run in runs.values()) / 60
    own = "".join(f"- `{row}`: {told.own}.\n" for row, told in track.rows.items())
    text = f"## {track.title}\n\n{own}\n"
    text += f"{len(won)} of {count} methods beat the base with the interval above 0. Seeds {', '.join(cells.seeds)};"
    text += f" {pairs} samples a cell; budget {track.budget:,} forwards; training took {minutes:.0f} CPU minutes.\n\n"
    text += main_table(track, cells) + fact_table(track, cells)
    if any(row.curve for row in track.rows.values()):
        text += f"On the first {track.curve} captions, after shares of the budget:\n\n{curve_table(track, cells)}"
    text += compared(track, cells) + search_table(track, cells)
    return text + f"![Samples of the first seed](headline_methods/{name}.png)\n\n"

"""The headline of a comparison, in words and numbers: one row a measure, for the terminal and for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffpref.evaluation.results import Comparison, FactResult, ScoreResult
from diffpref.evaluation.statistics import Interval, WinRate

__all__ = ["TIES", "Row", "fact_rows", "headline", "number", "percent", "reading", "sentence", "side", "words"]


TIES = {"half": "one half", "loss": "as losses"}


@dataclass(frozen=True)
class Row:
    """One line of a table, ready to be shown. ``win`` is None for shares, which have no winner."""

    measure: str
    base: str
    aligned: str
    difference: str
    reading: str
    win: WinRate | None = None

    @property
    def win_rate(self) -> str:
        """The rate with its interval, percent."""
        return f"{percent(self.win.rate)} [{100 * self.win.low:.1f}, {100 * self.win.high:.1f}]" if self.win else ""

    @property
    def counts(self) -> str:
        """Wins, ties and losses."""
        return f"{self.win.wins} / {self.win.ties} / {self.win.losses}" if self.win else ""


def percent(share: float) -> str:
    """Return a share 0..1 in percent."""
    return f"{100 * share:.1f} %"


def number(value: float, *, significant: int = 4, like: float | None = None, sign: bool = False) -> str:
    """Return a score in plain notation where that is short, else in powers of ten.

    Args:
        value: a finite number.
        significant: digits.
        like: a number with which the decimals are shared, so that an interval's ends line up; itself by default.
        sign: show a plus too.
    """
    size = abs(value if like is None else like)
    exponent = math.floor(math.log10(size)) if size else 0
    plain = -4 <= exponent < 6
    places = max(0, significant - 1 - exponent) if plain else significant - 1
    return f"{value:{'+' if sign else ''}.{places}{'f' if plain else 'e'}}"


def side(name: str) -> str:
    """Return a side of a comparison as a sentence names it."""
    return f"the {name} model" if name in ("base", "aligned") else name


def words(name: str) -> str:
    """Return a name as a reader would say it: ``first_colour`` -> ``first colour``."""
    return name.replace("_", " ")


def reading(low: float, high: float, even: float) -> str:
    """Return what an interval says: better, worse, or undecided where it holds the even value."""
    return "better" if low > even else "worse" if high < even else "undecided"


def _points(interval: Interval) -> str:
    return f"{interval.estimate:+.1f} points [{interval.low:+.1f}, {interval.high:+.1f}]"


def _share(result: FactResult) -> Row:
    verdict = reading(result.difference.low, result.difference.high, 0.0)
    shares = percent(result.base_share), percent(result.aligned_share)
    return Row(words(result.name), *shares, _points(result.difference), verdict)


def _score(result: ScoreResult) -> Row:
    version = result.version.removeprefix("sha256-")[:7]  # whole in results.json
    name = f"{words(result.name)} {version}".strip()
    d, win = result.difference, result.win
    if d is None or win is None or result.base_mean is None or result.aligned_mean is None:
        return Row(name, "", "", "", f"no finite pair, {result.dropped:,} left out")
    largest = max(abs(d.low), abs(d.high))
    estimate, low, high = (number(v, significant=3, like=largest, sign=True) for v in (d.estimate, d.low, d.high))
    means = number(result.base_mean), number(result.aligned_mean)
    return Row(name, *means, f"{estimate} [{low}, {high}]", reading(win.low, win.high, 0.5), win)


def headline(comparison: Comparison) -> list[Row]:
    """Return the rows that decide: all facts right, number of facts right, each judge."""
    rows = [] if comparison.all_facts is None else [_share(comparison.all_facts)]
    scores = comparison.judges if comparison.num_facts is None else (comparison.num_facts, *comparison.judges)
    return [*rows, *map(_score, scores)]


def fact_rows(comparison: Comparison) -> list[Row]:
    """Return a row for each single fact."""
    return [_share(fact) for fact in comparison.facts]


def sentence(comparison: Comparison) -> str:
    """Return the finding in one sentence."""
    pairs = f"{len(comparison.items):,} prompt-seed pairs"
    level = f"{100 * comparison.level:g} % interval"
    base, aligned = comparison.names
    against = "" if comparison.names == ("base", "aligned") else f" against {side(base)}"
    if (facts := comparison.all_facts) is not None:
        d = facts.difference
        return (
            f"All facts are right in {percent(facts.aligned_share)} of {side(aligned)}'s {comparison.noun} and "
            f"{percent(facts.base_share)} of {side(base)}'s: {d.estimate:+.1f} points "
            f"({level} {d.low:+.1f} to {d.high:+.1f}) on {pairs}."
        )
    name, win = next(((one.name, one.win) for one in comparison.judges if one.win), ("", None))
    if win is None:
        return f"No judge gave finite scores to both {comparison.noun} of any of {pairs} of {side(aligned)}{against}."
    return (
        f"By {words(name)}, {side(aligned)} wins {percent(win.rate)} of {pairs}{against} "
        f"({level} {100 * win.low:.1f} to {100 * win.high:.1f}; ties count {TIES[comparison.ties]})."
    )

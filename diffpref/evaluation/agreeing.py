"""How far scorers agree about the candidates of a prompt, as a table of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from diffpref.evaluation.headline import words
from diffpref.evaluation.sheets import Sheet
from diffpref.evaluation.standings import Column, Standings
from diffpref.evaluation.table import FACTS_RIGHT
from diffpref.ranking import Agreement, agreement

__all__ = ["agreement_sheet", "judges_agreement"]

HEADS = ("scorers", "agree", "tau-b", "pairs", "ties", "unscored")
NOTE = (
    "Of every two candidates of a prompt that both scorers order: the share of which they prefer the same one; 50 % is"
    " chance. Kendall's tau-b counts ties against them. Pairs with a score that is not finite are left out and counted."
)


def judges_agreement(standings: Standings) -> Agreement | None:
    """Return how far the judges of an evaluation agree, over all contenders' candidates of the same prompt.

    The number of facts that hold is a judge too. None where there are fewer than two.
    """
    rows: dict[str, list[int]] = {}
    for number, prompt in enumerate(standings.prompts):
        rows.setdefault(prompt, []).append(number)
    columns = list(standings.columns.values())
    told: dict[str, Sequence[Sequence[float | None]]] = {
        judge: [column.scores.get(judge, [None] * len(standings.prompts)) for column in columns]
        for judge in standings.judges
    }
    if all(column.facts for column in columns):
        told = {FACTS_RIGHT: [_facts_right(column) for column in columns], **told}
    scores = {
        name: [[_number(by[number]) for number in numbers for by in of] for numbers in rows.values()]
        for name, of in told.items()
    }
    return agreement(scores) if len(scores) > 1 else None


def _facts_right(column: Column) -> list[float]:
    return [float(sum(held)) for held in zip(*_values(column.facts), strict=True)]


def _values(facts: Mapping[str, Sequence[bool]]) -> list[Sequence[bool]]:
    return list(facts.values())


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def agreement_sheet(found: Agreement, title: str, of: str) -> Sheet:
    """Return a table with a row for every two scorers.

    Args:
        found: what was counted.
        title: of the table.
        of: whose candidates they are, a sentence.
    """

    def told(value: float, form: str) -> str:
        return "" if math.isnan(value) else form.format(value)

    rows = tuple(
        (
            f"{words(pair.first)}, {words(pair.second)}",
            told(100 * pair.share, "{:.1f} %"),
            told(pair.tau, "{:+.3f}"),
            f"{pair.concordant + pair.discordant:,}",
            f"{pair.first_ties + pair.second_ties + pair.both_ties:,}",
            f"{pair.unscored:,}",
        )
        for pair in found.pairs
    )
    return Sheet(title, HEADS, rows, f"{of} {NOTE}")

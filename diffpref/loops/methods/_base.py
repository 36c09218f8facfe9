"""What the methods of loops have in common, and the pieces of which most are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from diffpref.config import Section
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.loops.stage import Drawer, Feed, Iterate, Stage, Training, Verdict
from diffpref.ranking import best_vs_worst

__all__ = [
    "Anchor",
    "Asks",
    "LoopMethod",
    "Uniform",
    "against_third",
    "anchored",
    "best_and_worst",
    "content",
    "gold",
    "judged",
    "matrix_of",
    "tagged",
    "with_scores",
]

Anchor: TypeAlias = Literal["previous", "initial"]
"""What the run of a round is held to: the policy with which it begins, or the model before the loop."""
Asks: TypeAlias = Literal["judge", "implicit", "nothing"]
"""Whom a round asks about candidates: the recipe's judge, the policy's own implicit reward, or nobody."""
Uniform: TypeAlias = Callable[[], float]
"""Draws numbers in [0, 1) for one record, the same whenever the round is done again."""


class LoopMethod(Section):
    """A loop's options. The defaults here are those of a plain loop over prompts; nothing is kept on ``self``."""

    source: ClassVar[str] = ""
    evidence: ClassVar[str] = ""
    takes: ClassVar[Literal["prompts", "data", "either", "both"]] = "either"
    """What a recipe must give: prompts, data with candidates, one of the two, or both."""

    def feed(self, stage: Stage) -> Feed:
        """Return what the round's records begin as."""
        return Feed("prompts", stage.round)

    @abstractmethod
    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        """Return who draws further candidates, in the order in which they stand behind those of the feed."""

    def asks(self, stage: Stage) -> Asks:
        """Return who is asked about the candidates."""
        return "judge"

    @abstractmethod
    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Return what is trained on of a record whose candidates were drawn and judged: none, it, or several."""

    @abstractmethod
    def training(self, stage: Stage) -> Training:
        """Return what the run of the round is trained with."""

    def advance(self, stage: Stage, result: Iterate, folder: Path) -> Iterate:
        """Return what the next round begins from.

        Args:
            stage: of the round that has ended.
            result: what its run left.
            folder: for weights that are made of it.
        """
        return result

    def shown(self, prompt: str, stage: Stage) -> str:
        """Return the prompt as the drawers read it; the judge reads it as it is."""
        return prompt

    def num_parts(self, rounds: int) -> int:
        """Return into how many parts prompts and data are divided: most loops take fresh ones every round."""
        return rounds


def anchored(anchor: Anchor, stage: Stage) -> dict[str, Any]:
    """Return the changes of roles that make an anchor the reference.

    A run's reference is what its policy begins with, unless it is told otherwise; the first round needs no telling.
    """
    return {} if anchor == "previous" or not stage.round else {"reference": {"source": "initial"}}


def judged(record: Record, pairs: Iterable[tuple[int, int, float]], annotator: str = "") -> Record:
    """Return a record whose judgements are (first, second, P(first is better)) and no others."""
    found = tuple(Judgement(first, second, probability, annotator=annotator) for first, second, probability in pairs)
    return replace(record, judgements=found)


def with_scores(record: Record, name: str, values: Sequence[float]) -> Record:
    """Return a record with one more score on each candidate."""
    candidates = [
        replace(candidate, scores=(*candidate.scores, Score(name, "1", value)))
        for candidate, value in zip(record.candidates, values, strict=True)
    ]
    return replace(record, candidates=tuple(candidates))


def tagged(record: Record, **groups: int) -> Record:
    """Return a record that says which candidate belongs to a group that no judgement names: calibration, online."""
    return replace(record, meta={**record.meta, **{group: str(number) for group, number in groups.items()}})


def content(candidate: Candidate) -> str | bytes | None:
    """Return what a candidate is, to tell whether two are the same."""
    return candidate.text or candidate.bytes or candidate.path


def gold(record: Record) -> int:
    """Return the number of the answer that the data take for the best: the first judgement's winner, or the first."""
    if not record.judgements:
        return 0
    head = record.judgements[0]
    return head.first if head.probability >= 0.5 else head.second


def best_and_worst(scores: Sequence[float]) -> tuple[int, int]:
    """Return the first of the best and the first of the worst; one number twice where nothing is better."""
    pair = best_vs_worst(scores)
    return pair[0] if pair else (0, 0)


def matrix_of(verdict: Verdict, count: int) -> list[list[float]]:
    """Return P(i beats j) for all candidates, 1/2 on the diagonal."""
    return [[0.5 if i == j else verdict.beats(i, j) for j in range(count)] for i in range(count)]


def against_third(record: Record, verdict: Verdict) -> Record:
    """Return a record of two answers with their win rates against a third; the better one first.

    Equal win rates are a pair, too: it says that the log-ratios are to be equal.
    """
    rates = [verdict.beats(0, 2), verdict.beats(1, 2), 0.5]
    first, second = (0, 1) if rates[0] >= rates[1] else (1, 0)
    return with_scores(judged(record, [(first, second, 1.0)]), "win_rate", rates)

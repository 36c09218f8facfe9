"""The list view: the candidates of a record with their scores and ranks."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.data.combined import Combined, ScoreName, missing_names
from diffpref.data.items import Value
from diffpref.data.pairs import LIMIT, whole_judgements
from diffpref.data.scores import FEW, judged_win_rates, kinds_of_scores, read_scores, scored_win_rates
from diffpref.ranking import ranks

__all__ = ["Ranking", "list_view"]

logger = logging.getLogger(__name__)

TIED = "records whose candidates are all equally good"


@dataclass(frozen=True)
class Ranking:
    """Candidates of a record that can be compared, in the record's order.

    Args:
        record_index: position in the records that the view was made of.
        record_id: of the record.
        prompt: of the record.
        candidates: their positions among the record's.
        scores: one each, higher is better.
        win_rates: one each: the mean probability to beat the others, and itself with 1/2.
        weight: multiplies the loss.
        captions: group -> the text that it is shown under instead of the prompt.
    """

    record_index: int
    record_id: str
    prompt: str
    candidates: tuple[int, ...]
    scores: tuple[float, ...]
    win_rates: tuple[float, ...]
    weight: float = 1.0
    captions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Of the list's random draws."""
        return f"{self.record_id}/list"

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """The candidates."""
        return {"list": self.candidates}

    @property
    def columns(self) -> Mapping[str, Value]:
        """Weight, scores, win rates, and ranks, of which 0 is the best; equals share a rank."""
        told = {"list_scores": self.scores, "list_win_rate": self.win_rates, "ranks": tuple(ranks(self.scores))}
        return {"weight": self.weight, **told}


def list_view(
    records: Sequence[Record],
    score: ScoreName | None = None,
    *,
    aspect: str = "overall",
    drop_ties: bool = True,
    max_unusable: float = LIMIT,
    score_scale: float = 1.0,
) -> list[Ranking]:
    """Return a list for each record with at least two candidates that are scored or judged.

    Args:
        records: of a store or a plain table.
        score: the reward (``name`` or ``name@version``) that scores, or several as `Combined`; None: the mean
            probability to win by the record's judgements is the score.
        aspect: without ``score``: which judgements.
        drop_ties: leave out records whose candidates are all equally good.
        max_unusable: with ``score``: the largest share of its values that may be NaN or infinite.
        score_scale: with ``score``: s such that P(a is better than b) = sigmoid(s * (score_a - score_b)).

    Raises:
        DataError: no record gives a list, and the message says why.
        ConfigError: several scores by consensus, which keeps or drops pairs and orders no list.
    """
    if isinstance(score, Combined) and score.rule == "consensus":
        raise ConfigError(
            "data.combine: consensus keeps or drops pairs; lists take zscore, win_fraction, strict_win_fraction or"
            " weighted_sum"
        )
    left_out: Counter[str] = Counter()
    if score is None:
        told = [judged_win_rates(len(r.candidates), whole_judgements(r, aspect)) for r in records]
        rates = told
    else:
        told = read_scores(records, score, max_unusable, left_out)
        rates = [scored_win_rates(scores, score_scale) for scores in told]
    found = []
    for index, (record, scores, wins) in enumerate(zip(records, told, rates, strict=True)):
        there = tuple(number for number, value in enumerate(scores) if math.isfinite(value))
        kept = tuple(scores[number] for number in there)
        if len(there) < 2:
            left_out[FEW] += score is None
        elif drop_ties and len(set(kept)) == 1:
            left_out[TIED] += 1
        else:
            wins_kept = tuple(wins[number] for number in there)
            found.append(Ranking(index, record.id, record.prompt, there, kept, wins_kept))
    if left_out:
        logger.info("left out: %s", ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())))
    if not found:
        raise DataError(_why_none(records, score, left_out))
    return found


def _why_none(records: Sequence[Record], score: ScoreName | None, left_out: Mapping[str, int]) -> str:
    start = f"{len(records)} records give no list"
    if all(len(record.candidates) < 2 for record in records):
        return (
            f"{start}: none has more than one candidate (K = 1), and a list compares at least 2; give several"
            " candidates a prompt ('diffpref generate RECIPE --candidates 4 --output FOLDER' draws them), or use an"
            " objective of single samples, such as kto"
        )
    if left_out.get(TIED):
        return f"{start}: in {left_out[TIED]} all candidates are equally good"
    counted = kinds_of_scores(records)
    existing = ", ".join(f"{name} ({count})" for name, count in sorted(counted.items())) or "none"
    if score is None:
        judgements = sum(len(record.judgements) for record in records)
        return f"{start}: {judgements} judgements rank no two candidates; to rank by a score, name one: {existing}"
    absent = " ".join(missing_names(score, records)) or "NAME"
    return (
        f"{start}: none has two candidates with a score '{score}'; scores there are: {existing}; 'diffpref score STORE"
        f" --rewards {absent} --output FOLDER' adds them"
    )

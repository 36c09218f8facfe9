"""The pair view: which candidate of a record is chosen and which rejected. It is decided here and nowhere else."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from diffpref.core.contracts import Judgement, Record
from diffpref.core.errors import DataError
from diffpref.data.aspects import aspect_preferences, judged_pairs
from diffpref.data.combined import Combined, ScoreName, missing_names
from diffpref.data.items import Value, attached
from diffpref.data.scores import (
    SIMILARITY,
    judged_win_rates,
    kinds_of_scores,
    members,
    read_scores,
    score_of,
    scored_win_rates,
    stored_win_rates,
)
from diffpref.data.segments import Segment, check_judgement, judged_parts
from diffpref.ranking import PAIRINGS, agreed_pairs, rarity_weights, whole_label, win_probability

__all__ = ["LIMIT", "Pair", "Pairs", "pair_view", "whole_judgements"]

logger = logging.getLogger(__name__)

LIMIT = 0.01
"""The share of a source that may be unusable unless a recipe says otherwise."""
SIDES = ("chosen", "rejected")
TIES = "judgements that are ties"
IDENTICAL = "pairs of one and the same picture"
DISPUTED = "pairs on which the scores disagree"
MOSTLY_TIES = "pairs with too few judged parts that are no ties"
COMMON = 0.72
"""Share of the most common gaps in VideoDPO's data; its code has the number."""


@dataclass(frozen=True)
class Pair:
    """Two candidates of a record, the better one first.

    Args:
        record_index: position in the records that the view was made of.
        record_id: of the record.
        prompt: of the record.
        chosen: position of the winner among the candidates.
        rejected: position of the loser.
        probability: P(chosen is better), 0.5..1.
        weight: multiplies the loss.
        occurrence: how many judgements of the same two candidates and aspect the record lists before this one.
        scores: of winner and loser, where the pair follows from scores.
        win_rates: of winner and loser: the mean probability to beat the record's candidates, itself with 1/2.
        similarities: of winner and loser: how close their meaning is to the prompt's, where both have that score.
        others: further candidates of the record that go with the pair, by group: ``gold``, ``calibration``.
        aspects: P(chosen is better) in each aspect that was asked for, below 0 where nobody judged it.
        segments: of clips that were judged by parts, which was better when.
        captions: group -> the text that it is shown under instead of the prompt.
    """

    record_index: int
    record_id: str
    prompt: str
    chosen: int
    rejected: int
    probability: float = 1.0
    weight: float = 1.0
    occurrence: int = 0
    scores: tuple[float, float] | None = field(default=None, compare=False)
    win_rates: tuple[float, float] | None = field(default=None, compare=False)
    similarities: tuple[float, float] | None = field(default=None, compare=False)
    others: Mapping[str, int] = field(default_factory=dict, compare=False)
    aspects: tuple[float, ...] | None = field(default=None, compare=False)
    segments: tuple[Segment, ...] = field(default=(), compare=False)
    captions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def groups(self) -> Mapping[str, int]:
        """The candidate of either side, and those that go with the pair."""
        return {"chosen": self.chosen, "rejected": self.rejected, **self.others}

    @property
    def columns(self) -> Mapping[str, Value]:
        """Label and weight, and scores and win rates of both sides and preferences by aspect where there are any."""
        told = {"score": self.scores, "win_rate": self.win_rates, "similarity": self.similarities}
        both = {f"{side}_{what}": of[i] for what, of in told.items() if of for i, side in enumerate(SIDES)}
        told_apart = {} if self.aspects is None else {"preferences": self.aspects}
        if self.segments:  # whoever knows which frames are shown brings them to latent frames
            numbers = (number for part in self.segments for number in (part.start, part.end, part.label))
            told_apart = {**told_apart, "segment_label": tuple(numbers)}
        return {"preference": self.probability, "weight": self.weight, **both, **told_apart}

    @property
    def key(self) -> str:
        """Of the pair's random draws: the same whichever of the two is the winner, another for another judgement."""
        low, high = sorted((self.chosen, self.rejected))
        return f"{self.record_id}/{low}-{high}" + (f"#{self.occurrence}" if self.occurrence else "")


class Pairs(list[Pair]):
    """Pairs, and in ``left_out`` how much gave none, by reason."""

    def __init__(self, pairs: Iterable[Pair] = (), left_out: Mapping[str, int] | None = None) -> None:
        super().__init__(pairs)
        self.left_out: dict[str, int] = dict(left_out or {})


def pair_view(
    records: Sequence[Record],
    pairing: str = "best_vs_worst",
    score: ScoreName | None = None,
    *,
    min_gap: float = 0.0,
    drop_ties: bool = True,
    drop_identical: bool = True,
    judgements: str = "each",
    aspect: str = "overall",
    max_unusable: float = LIMIT,
    score_scale: float = 1.0,
    tie_weight: float = 0.0,
    soft: bool = False,
    aspects: Sequence[str] = (),
    parts: bool = False,
    min_non_tie: float = 0.0,
    rarity_bins: int | None = None,
) -> Pairs:
    """Return the pairs of records, in their order, and the counts of what was left out.

    Args:
        records: of a store or a plain table.
        pairing: with ``score``: which two of a record's candidates, a name of `diffpref.ranking.PAIRINGS`.
        score: the reward (``name`` or ``name@version``) whose scores order the candidates, or several as `Combined`;
            None: the judgements decide.
        min_gap: with ``score``: the smallest difference that counts, in the score's unit.
        drop_ties: without ``score``: leave out judgements of probability 0.5; else they stay, the first as chosen.
        drop_identical: leave out pairs of one and the same picture; else they stay, and teach nothing.
        judgements: without ``score``: ``"each"`` makes several judgements of the same two candidates as many pairs,
            with random draws of their own; ``"merged"`` makes them one, with the mean probability by weight and the
            sum of the weights.
        aspect: without ``score``: which judgements. Two candidates of which parts alone are judged (with start and end)
            have one label too, that of most parts.
        max_unusable: with ``score``: the largest share of its values that may be NaN or infinite.
        score_scale: with ``score``: s in P(a is better than b) = sigmoid(s * (score_a - score_b)), for win rates.
        tie_weight: with ``score`` and ``soft``: nu of Davidson's ties, see `diffpref.ranking.win_probability`.
        soft: with ``score``: that probability is the pair's, else 1.
        aspects: names of judgements' aspects or of scores, for which every pair gets a preference each. Without
            ``score`` the pairs are then those that are judged by any of them, with the first as chosen.
        parts: the pairs are those of which parts are judged; the one that is better in more of them is chosen, and no
            label but those of the parts is told.
        min_non_tie: with ``parts``: leave out pairs of which no larger share of the judged parts than this is no tie.
        rarity_bins: with ``score``: a pair weighs the more the rarer its difference of scores is, by a histogram of so
            many bins over all pairs, see `diffpref.ranking.rarity_weights`.

    Raises:
        DataError: no record gives a pair, and the message says why; a judgement is not one; too many unusable scores.
        ConfigError: no such pairing.
    """
    left_out: Counter[str] = Counter()
    if parts:
        found = _judged_in_parts(records, aspect, drop_ties, min_non_tie, left_out)
    elif score is None and aspects:
        found = _judged_by(records, aspects)
    elif score is None:
        found = _judged(records, aspect, judgements == "merged", drop_ties, left_out)
    else:
        scale = (score_scale, tie_weight)
        found = _scored(records, pairing, score, min_gap, max_unusable, scale, soft, left_out)
        if rarity_bins is not None:
            found = _weighed_by_rarity(list(found), rarity_bins)
    others = {index: there for index, record in enumerate(records) if (there := attached(record))}
    pairs = Pairs(
        replace(
            pair,
            others=others.get(pair.record_index, {}),
            similarities=_similarities(records[pair.record_index], pair),
            aspects=_preferences(records[pair.record_index], pair, aspects),
        )
        for pair in found
        if not (drop_identical and _identical(records, pair, left_out))
    )
    pairs.left_out = dict(left_out)
    if left_out:
        logger.info("left out: %s", ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())))
    if not pairs:
        why = _why_no_parts(records, aspect, min_non_tie, left_out) if parts else ""
        raise DataError(why or _why_none(records, score, min_gap, aspect, left_out))
    return pairs


def _judged_by(records: Sequence[Record], aspects: Sequence[str]) -> Iterator[Pair]:
    for index, record in enumerate(records):
        for first, second in judged_pairs(record, aspects):
            yield Pair(index, record.id, record.prompt, first, second)


def _weighed_by_rarity(pairs: Sequence[Pair], num_bins: int) -> Iterator[Pair]:
    gaps = [pair.scores[0] - pair.scores[1] for pair in pairs if pair.scores is not None]
    weights = rarity_weights(gaps, num_bins=num_bins, top=COMMON) if gaps else []
    yield from (replace(pair, weight=weight) for pair, weight in zip(pairs, weights, strict=True))


def _judged_in_parts(
    records: Sequence[Record], aspect: str, drop_ties: bool, min_non_tie: float, left_out: Counter[str]
) -> Iterator[Pair]:
    for index, record in enumerate(records):
        for (first, second), segments in judged_parts(record, aspect).items():
            labels = [part.label for part in segments]
            told = sum(map(abs, labels))
            if drop_ties and not told:
                left_out[TIES] += 1
                continue
            if min_non_tie and told <= min_non_tie * len(labels):
                left_out[MOSTLY_TIES] += 1
                continue
            if whole_label(labels) < 0:
                first, second = second, first
                segments = tuple(replace(part, label=0 - part.label) for part in segments)
            yield Pair(index, record.id, record.prompt, first, second, segments=segments)


def _preferences(record: Record, pair: Pair, aspects: Sequence[str]) -> tuple[float, ...] | None:
    return aspect_preferences(record, pair.chosen, pair.rejected, aspects) if aspects else None


def _similarities(record: Record, pair: Pair) -> tuple[float, float] | None:
    """Return how close the meaning of either side is to the prompt's, where both were scored for that."""
    chosen, rejected = (score_of(record.candidates[place], SIMILARITY) for place in (pair.chosen, pair.rejected))
    return (chosen, rejected) if math.isfinite(chosen) and math.isfinite(rejected) else None


def _identical(records: Sequence[Record], pair: Pair, left_out: Counter[str]) -> bool:
    """Whether both sides of a pair are one candidate, or two with the same content; counted."""
    candidates = records[pair.record_index].candidates
    one, other = candidates[pair.chosen], candidates[pair.rejected]
    same = pair.chosen == pair.rejected or (one.bytes, one.path, one.text) == (other.bytes, other.path, other.text)
    left_out.update([IDENTICAL] * same)
    return same


def _judged(
    records: Sequence[Record], aspect: str, merged: bool, drop_ties: bool, left_out: Counter[str]
) -> Iterator[Pair]:
    voted = 0
    for index, record in enumerate(records):
        found = whole_judgements(record, aspect)
        found += (votes := _votes(record, aspect, found))
        voted += len(votes)
        rates = stored_win_rates(record) or judged_win_rates(len(record.candidates), found)
        seen: Counter[frozenset[int]] = Counter()
        for judgement in _merged(found) if merged else found:
            first, second, probability = judgement.first, judgement.second, judgement.probability
            sides = frozenset((first, second))
            occurrence, seen[sides] = seen[sides], seen[sides] + 1  # ties count: keeping them moves no other draw
            if probability == 0.5 and drop_ties:
                left_out[TIES] += 1
                continue
            if probability < 0.5:
                first, second, probability = second, first, 1.0 - probability
            label = probability, judgement.weight, occurrence
            won = (rates[first], rates[second])
            yield Pair(index, record.id, record.prompt, first, second, *label, win_rates=won)
    if voted:
        logger.info("%d pairs were judged by parts alone and have the label of most of them", voted)


def _votes(record: Record, aspect: str, whole: Sequence[Judgement]) -> list[Judgement]:
    """Return a judgement of the whole by the majority of its parts, of each two that nobody judged as a whole."""
    known = [{judgement.first, judgement.second} for judgement in whole]
    return [
        Judgement(*sides, probability=(1 + whole_label([part.label for part in segments])) / 2, aspect=aspect)
        for sides, segments in judged_parts(record, aspect).items()
        if set(sides) not in known
    ]


def whole_judgements(record: Record, aspect: str = "overall") -> list[Judgement]:
    """Return the judgements of whole candidates by an aspect.

    Raises:
        DataError: one of them is not a judgement of the record's candidates.
    """
    found = [j for j in record.judgements if j.aspect == aspect and j.start is None and j.end is None]
    for judgement in found:
        check_judgement(judgement, record)
    return found


def _merged(judgements: Sequence[Judgement]) -> Iterator[Judgement]:
    """Yield one judgement for each two candidates, in the order in which they first appear."""
    groups: dict[frozenset[int], list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(frozenset((judgement.first, judgement.second)), []).append(judgement)
    for several in groups.values():
        head, weight = several[0], math.fsum(j.weight for j in several)
        turned = [j.probability if j.first == head.first else 1.0 - j.probability for j in several]
        weights = [j.weight for j in several] if weight else [1.0] * len(several)
        mean = math.fsum(w * p for w, p in zip(weights, turned, strict=True)) / math.fsum(weights)
        yield replace(head, probability=min(mean, 1.0), weight=weight, annotator="")


def _scored(
    records: Sequence[Record],
    pairing: str,
    score: ScoreName,
    min_gap: float,
    max_unusable: float,
    scale: tuple[float, float],
    soft: bool,
    left_out: Counter[str],
) -> Iterator[Pair]:
    choose = PAIRINGS.get(pairing)
    read = read_scores(records, score, max_unusable, left_out)
    agreed = total = 0
    for index, (record, scores) in enumerate(zip(records, read, strict=True)):
        rates = scored_win_rates(scores, scale[0])
        undisputed = agreed_pairs(members(record, score)) if isinstance(score, Combined) else None
        for chosen, rejected in choose(scores, min_gap=min_gap):
            total, is_agreed = total + 1, undisputed is None or (chosen, rejected) in undisputed
            agreed += is_agreed
            if isinstance(score, Combined) and score.rule == "consensus" and not is_agreed:
                left_out[DISPUTED] += 1
                continue
            both = (scores[chosen], scores[rejected])
            won = (rates[chosen], rates[rejected])
            probability = win_probability(both[0] - both[1], *scale) if soft else 1.0
            yield Pair(index, record.id, record.prompt, chosen, rejected, probability, scores=both, win_rates=won)
    if isinstance(score, Combined) and total:
        logger.info("%s: all scores agree on %d of %d pairs (%.1f %%)", score, agreed, total, 100 * agreed / total)


def _why_no_parts(records: Sequence[Record], aspect: str, min_non_tie: float, left_out: Mapping[str, int]) -> str:
    """Return why no pair that is judged by parts is left, or ``""`` where the reason is not one of parts."""
    start = f"{len(records)} records give no pair"
    if left_out.get(MOSTLY_TIES):
        return (
            f"{start}: in {left_out[MOSTLY_TIES]} pairs at most {min_non_tie:.0%} of the judged parts are no ties, and"
            " only those with more teach anything; judge with a smaller --tie, give clips that differ more, or lower"
            " the objective's min_non_tie"
        )
    of_parts = [j for record in records for j in record.judgements if not (j.start is None and j.end is None)]
    if any(j.aspect == aspect for j in of_parts):
        return ""
    total = sum(len(record.judgements) for record in records)
    return (
        f"{start}: of {total} judgements none of aspect '{aspect}' is of a part of two clips (with start and end in"
        " seconds); 'diffpref score STORE --rewards NAME --segments 1 --output DIR' judges every second of them"
    )


def _why_none(
    records: Sequence[Record], score: ScoreName | None, min_gap: float, aspect: str, left_out: Mapping[str, int]
) -> str:
    counted = kinds_of_scores(records)
    existing = ", ".join(f"{name} ({count})" for name, count in sorted(counted.items())) or "none"
    judgements = sum(len(record.judgements) for record in records)
    start = f"{len(records)} records give no pair"
    if left_out.get(IDENTICAL):
        return f"{start}: {left_out[IDENTICAL]} were of one and the same picture"
    labels = sum(c.label is not None for record in records for c in record.candidates)
    if score is None and labels and not judgements:
        return (
            f"{start}: {labels} candidates carry labels of their own, which an objective of single samples reads, such"
            " as kto; a pair needs judgements or a score"
        )
    if score is None:
        return (
            f"{start}: of {judgements} judgements none of aspect '{aspect}' is decided;"
            f" to pair by a score, name one: {existing}"
        )
    if missing := missing_names(score, records):
        there = f"scores there are: {existing}; judgements: {judgements}"
        how = f"'diffpref score STORE --rewards {missing[0].partition('@')[0]} --output DIR' gives them one"
        return f"{start}: no candidate has a score '{missing[0]}'; {there}; {how}"
    if left_out.get(DISPUTED):
        return f"{start}: {left_out[DISPUTED]} were {DISPUTED}; combine otherwise than by consensus, or fewer scores"
    return f"{start}: all differences of '{score}' are 0 or below min_gap={min_gap}, or no record has two scores"

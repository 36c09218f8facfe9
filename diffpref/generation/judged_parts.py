"""Judgements of parts of clips, added to their records: DenseDPO's labels, by rewards or by judges of two clips."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, TypeAlias

from pyarrow import parquet
from torch import Tensor

from diffpref.core.contracts import Judge, Judgement, Record, Reward
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.media import Clip
from diffpref.data import Store
from diffpref.data.clips import read_clip
from diffpref.data.metadata import metadata_of
from diffpref.data.pairs import LIMIT
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import GrowingStore
from diffpref.generation.scoring import Progress
from diffpref.ranking import agreed_label, equal_parts

__all__ = ["PartSettings", "PartSummary", "judge_parts", "judge_parts_of_store", "summarise_parts"]

logger = logging.getLogger(__name__)

PartJudge: TypeAlias = "Reward | Judge"
UNIT = 32  # records of one part of a store; clips are large
_COLUMNS = [f"judgements.list.element.{field}" for field in ("annotator", "probability", "start", "end")]
PROBABILITY = {1: 1.0, 0: 0.5, -1: 0.0}


@dataclass(frozen=True)
class PartSettings:
    """How clips are judged by parts.

    Args:
        seconds: length of a part; DenseDPO's is 1. A last one shorter than half of it belongs to the one before.
        tie: the largest difference that is a tie, in units of the reward; of judges how far a probability may be from
            1/2. To be conservative makes labels more accurate: ties teach nothing, and wrong labels do.

    Raises:
        ConfigError: a value out of its range.
    """

    seconds: float = 1.0
    tie: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"segments: must be a number of seconds > 0, got {self.seconds:g}")
        if not (math.isfinite(self.tie) and self.tie >= 0):
            raise ConfigError(f"tie: must be a number >= 0, got {self.tie:g}")


def judge_parts(
    records: Sequence[Record], judges: Mapping[str, PartJudge], settings: PartSettings
) -> tuple[list[Record], int]:
    """Return the records with a judgement of each part of each two of their clips, and how many could not be read.

    A reward scores each part alone. A judge is asked about both clips of a part in both orders, and where the answers
    contradict each other that is a tie. An answer that is no number gives no judgement. Earlier judgements of parts by
    the same annotator are replaced.

    Args:
        records: whose candidates are clips of one length and speed a record, which they tell.
        judges: name -> reward or judge; a judgement's annotator is the name and the version.
        settings: how long parts are, and what is a tie.

    Raises:
        DataError: candidates of a record that are no clips, or differ, or do not tell their speed.
        ShapeError: a reward or judge did not answer once for each question.
    """
    made, unread = [], 0
    for record in records:
        if len(record.candidates) < 2:
            made.append(record)
            continue
        clips, fps = _read(record)
        places = equal_parts(len(clips[0].frames), fps=fps, seconds=settings.seconds)
        parts = [[Clip(clip.frames[first:last], fps) for clip in clips] for first, last in places]
        told: list[Judgement] = []
        for name, judge in judges.items():
            annotator = _annotator(name, judge)
            for number, one, other, label in _labels(name, judge, parts, record, settings.tie):
                unread += label is None
                if label is not None:
                    start, end = (place / fps for place in places[number])
                    told.append(Judgement(one, other, PROBABILITY[label], 1.0, annotator, start=start, end=end))
        names = {_annotator(name, judge) for name, judge in judges.items()}
        kept = [j for j in record.judgements if j.annotator not in names or (j.start is None and j.end is None)]
        made.append(replace(record, judgements=(*kept, *told)))
    return made, unread


def _annotator(name: str, judge: PartJudge) -> str:
    info = getattr(judge, "info", None)
    return f"{name}@{info.version}" if info is not None else name


def _read(record: Record) -> tuple[list[Clip], float]:
    """Return the clips of a record and their speed."""
    clips = [read_clip(one, name=f"record {record.id!r}, candidate {k}") for k, one in enumerate(record.candidates)]
    lengths = [(len(clip.frames), clip.fps) for clip in clips]
    if len(set(lengths)) > 1:
        told = " and ".join(f"{count} frames at {fps} a second" for count, fps in dict.fromkeys(lengths))
        raise DataError(f"record {record.id!r}: parts are compared between clips of one length and speed, got {told}")
    count, fps = lengths[0]
    if fps is None or count < 2:
        why = "is a picture" if count < 2 else "does not tell its frames a second"
        raise DataError(f"record {record.id!r}: parts are of clips by seconds, and candidate 0 {why}")
    return clips, fps


def _labels(
    name: str, judge: PartJudge, parts: Sequence[Sequence[Clip]], record: Record, tie: float
) -> Iterator[tuple[int, int, int, int | None]]:
    """Yield the number of each part, each two candidates and their label there, None where an answer is no number.

    All parts are asked about at once, so that what answers can take several together.
    """
    numbers = range(len(parts[0]))
    asked = [(part, one, other) for part in range(len(parts)) for one, other in combinations(numbers, 2)]
    if isinstance(judge, Reward):
        places = list(product(range(len(parts)), numbers))
        shown = [parts[part][number] for part, number in places]
        told = [metadata_of(record)] * len(shown) if judge.info.needs_metadata else None
        answers = _answers(name, judge.score(shown, [record.prompt] * len(shown), told), len(shown))
        scores = dict(zip(places, answers, strict=True))
        labels = [_label(scores[part, one] - scores[part, other], tie) for part, one, other in asked]
    else:
        labels = _verdicts(name, judge, parts, record.prompt, asked, tie)
        if not getattr(judge, "both_orders", False):  # else it has asked in both orders itself
            swapped = _verdicts(name, judge, parts, record.prompt, [(part, b, a) for part, a, b in asked], tie)
            both = zip(labels, swapped, strict=True)
            labels = [None if one is None or other is None else agreed_label(one, other) for one, other in both]
    yield from ((*sides, label) for sides, label in zip(asked, labels, strict=True))


def _verdicts(
    name: str,
    judge: Judge,
    parts: Sequence[Sequence[Clip]],
    prompt: str,
    asked: Sequence[tuple[int, int, int]],
    tie: float,
) -> list[int | None]:
    """Return what a judge says of the first of each two, asked in this order alone."""
    first, second = [parts[part][one] for part, one, _ in asked], [parts[part][other] for part, _, other in asked]
    said = _answers(name, judge.compare(first, second, [prompt] * len(asked)), len(asked))
    return [_label(probability - 0.5, tie) for probability in said]


def _answers(name: str, said: Tensor, count: int) -> list[float]:
    if said.shape != (count,):
        raise ShapeError(f"'{name}' gave shape {tuple(said.shape)} for {count} questions about parts of clips")
    return [float(value) for value in said]


def _label(gap: float, tie: float) -> int | None:
    if not math.isfinite(gap):
        return None
    return 0 if abs(gap) <= tie else 1 if gap > 0 else -1


def judge_parts_of_store(
    store: Store,
    judges: Mapping[str, PartJudge],
    output: Path | str,
    settings: PartSettings | None = None,
    on_progress: Progress | None = None,
    *,
    unit_size: int = UNIT,
    max_unusable: float = LIMIT,
) -> Store:
    """Copy a store, with judgements of parts added; see `judge_parts`. Several processes may share the work.

    Args:
        store: of clips; it is left as it is.
        judges: name -> reward or judge.
        output: folder of the new store; parts of an earlier run over the same store, judges and settings are kept.
        settings: how long parts are, and what is a tie.
        on_progress: called with (records there, records in all) at the start and after each part.
        unit_size: records of one part of the store.
        max_unusable: the largest share of all answers that may be NaN or infinite; as soon as this process has seen
            more, it stops.

    Raises:
        ConfigError: no judges, or the output is the store itself.
        DataError: the folder was made otherwise, a candidate is no clip, or too many answers are unusable.
    """
    if not judges:
        raise ConfigError("no judges: name at least one reward")
    output, settings = Path(output), settings or PartSettings()
    if output.resolve() == store.folder.resolve():
        raise ConfigError(f"{output} is the store that is judged; choose another folder for the judged one")
    plan: dict[str, Any] = {
        "kind": "judged parts",
        "store": store.digest,
        "made_by": store.manifest.get("generator", {}),
        "judges": [_annotator(name, judge) for name, judge in judges.items()],
        "seconds": settings.seconds,
        "tie": settings.tie,
        "unit_size": unit_size,
    }
    growing = GrowingStore(output, plan, -(-len(store) // unit_size))

    def rows(number: int) -> range:
        return range(number * unit_size, min((number + 1) * unit_size, len(store)))

    seen: Counter[str] = Counter()

    def make(number: int) -> list[Record]:
        made, unread = judge_parts([store[row] for row in rows(number)], judges, settings)
        names = plan["judges"]
        told = [j for record in made for j in record.judgements if j.annotator in names and j.start is not None]
        seen.update(records=len(made), unread=unread, answers=len(told) + unread)
        if unread:
            logger.warning("%d of %d answers about parts are no numbers", seen["unread"], seen["answers"])
        if seen["unread"] > max_unusable * seen["answers"] * len(store) / seen["records"]:  # more than all may have
            raise DataError(
                f"{seen['unread']} of {seen['answers']} answers about parts are NaN or infinite, more than the"
                f" {max_unusable:.0%} of all that may be (--max_unusable)"
            )
        return made

    def tell(missing: Sequence[int]) -> None:
        if on_progress:
            on_progress(len(store) - sum(len(rows(number)) for number in missing), len(store))

    rank, num_ranks = share_of_work()
    growing.fill(make, tell, rank=rank, num_ranks=num_ranks)
    return growing.finish(max_unusable)


@dataclass(frozen=True)
class PartSummary:
    """What one annotator says of the parts of a store.

    Args:
        annotator: name and version.
        first: parts in which the first clip is better.
        second: parts in which the second is.
        ties: parts in which neither is.
    """

    annotator: str
    first: int
    second: int
    ties: int


def summarise_parts(store: Store) -> list[PartSummary]:
    """Return a summary for each annotator of parts, in the order in which they judged."""
    found: dict[str, Counter[int]] = {}
    for part in store.manifest["parts"]:
        for row in parquet.ParquetFile(store.folder / part["file"]).read(columns=_COLUMNS).to_pylist():
            for told in row["judgements"] or ():
                if told["start"] is not None or told["end"] is not None:
                    leaning = told["probability"] - 0.5
                    found.setdefault(told["annotator"], Counter())[(leaning > 0) - (leaning < 0)] += 1
    return [PartSummary(name, told[1], told[-1], told[0]) for name, told in found.items()]

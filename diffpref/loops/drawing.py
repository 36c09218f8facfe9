"""The data of a round: prompts or records, further candidates, the judge's verdict, and what the method makes of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random, hash_key
from diffpref.data import Store, attached
from diffpref.generation.candidates import candidate_of
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import GrowingStore
from diffpref.loops.methods import LoopMethod
from diffpref.loops.players import Draw
from diffpref.loops.stage import Drawer, Stage, Verdict

__all__ = ["Judged", "RoundData", "draw_round"]

logger = logging.getLogger(__name__)

Judged = Callable[[Sequence[Record]], "list[tuple[Record, Verdict | None]]"]
"""Says something of every record's candidates; None where it has nothing usable to say."""


@dataclass(frozen=True)
class RoundData:
    """What decides the data of a round.

    Args:
        method: of the loop.
        stage: of the round.
        records: what the round begins with.
        seed: of the loop.
        part: which part of prompts or data: keys the draws, so that two rounds on one part can draw alike.
        identities: iterate -> which weights they are, for the drawers of the round.
        sampling: JSON-ready, how answers are drawn.
        judge: who is asked, with its version.
        unit_size: records of one part of the store, before the method has taken its choice.
    """

    method: LoopMethod
    stage: Stage
    records: Sequence[Record]
    seed: int
    part: int
    identities: Mapping[Any, str]
    sampling: Mapping[str, Any]
    judge: str
    unit_size: int

    @property
    def num_units(self) -> int:
        """How many parts there are."""
        return -(-len(self.records) // self.unit_size)

    def plan(self) -> dict[str, Any]:
        """Return JSON-ready values from which the data follow."""
        drawers = self.method.drawers(self.stage)
        told = [[r.id, r.prompt, [_mark(candidate) for candidate in r.candidates]] for r in self.records]
        return {
            "kind": "loop",
            "method": f"{type(self.method).__name__} {self.method.model_dump_json()}",
            "round": self.stage.round,
            "seed": self.seed,
            "records": hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest(),
            "drawers": [self._told(drawer) for drawer in drawers],
            "sampling": dict(self.sampling),
            "judge": self.judge,
            "unit_size": self.unit_size,
        }

    def _told(self, drawer: Drawer) -> dict[str, Any]:
        found: dict[str, Any] = {"weights": self.identities[drawer.iterate], "count": drawer.count}
        if drawer.mixed_with is not None and drawer.share:
            found |= {"mixed_with": self.identities[drawer.mixed_with], "share": drawer.share}
        return {**found, "stream": drawer.stream}


def _mark(candidate: Candidate) -> str:
    return candidate.sha256 or candidate.text or candidate.path or ""


def draw_round(
    data: RoundData,
    folder: Path,
    draw: Callable[[Drawer], Draw],
    judged: Judged,
    tell: Callable[[int, int], None] = lambda there, all_of_them: None,
) -> Store:
    """Draw, judge and label what is not there yet; several processes may share the work.

    Args:
        data: what decides it.
        folder: of the store; parts of an earlier start stay.
        draw: returns what draws for a drawer.
        judged: asks about records with all their candidates.
        tell: called with (units there, units in all).

    Raises:
        DataError: the folder was made otherwise; or no record gives anything to train on.
    """
    growing = GrowingStore(folder, data.plan(), data.num_units)
    drawers = data.method.drawers(data.stage)
    random = Random(data.seed)

    def make(number: int) -> list[Record]:
        records = list(data.records[number * data.unit_size : (number + 1) * data.unit_size])
        for drawer in drawers:
            records = _drawn(data, drawer, draw(drawer), records)
        found: list[Record] = []
        for record, verdict in judged(records):
            if verdict is None:
                logger.warning("record %r: a score is not finite; it is left out", record.id)
                continue
            uniform = random.numpy("loop label", data.stage.round, record.id).random
            labelled = data.method.label(record, verdict, uniform, data.stage)
            # what teaches nothing is kept, too: it is part of what the policy can do
            found += [one for one in labelled if not _is_empty(one)] or [replace(record, judgements=())]
        return found

    rank, num_ranks = share_of_work()
    growing.fill(
        make,
        lambda missing: tell(data.num_units - len(missing), data.num_units),
        rank=rank,
        num_ranks=num_ranks,
    )
    store = growing.finish()
    if not any(record.judgements for record in store):
        raise DataError(
            f"round {data.stage.round}: none of {len(data.records)} records gives anything to train on; the answers of"
            " each are equally good to the judge, or too few are different"
        )
    return store


def _is_empty(record: Record) -> bool:
    """Whether an answer that would be trained on is an empty text, of which a language model has no likelihood."""
    used = {side for judgement in record.judgements for side in (judgement.first, judgement.second)}
    used |= set(attached(record).values())
    return any(record.candidates[number].text == "" for number in used)


def _drawn(data: RoundData, drawer: Drawer, draw: Draw, records: Sequence[Record]) -> list[Record]:
    """Append a drawer's candidates to every record."""
    wanted = [(row, k) for row in range(len(records)) for k in range(drawer.count)]
    seeds = [hash_key(data.seed, "loop", drawer.stream, data.part, records[row].prompt, k) for row, k in wanted]
    shown = [data.method.shown(records[row].prompt, data.stage) for row, _ in wanted]
    answers = draw(shown, seeds)
    if len(answers) != len(wanted):
        raise DataError(f"the sampler gave {len(answers)} candidates for {len(wanted)} prompts")
    added: list[list[Candidate]] = [[] for _ in records]
    generator = data.identities[drawer.iterate]
    if drawer.mixed_with is not None and drawer.share:
        generator = f"{generator} mixed {drawer.share:g} with {data.identities[drawer.mixed_with]}"
    for (row, _), seed, answer in zip(wanted, seeds, answers, strict=True):
        added[row].append(candidate_of(answer, generator, seed))
    return [
        replace(record, candidates=(*record.candidates, *more)) for record, more in zip(records, added, strict=True)
    ]

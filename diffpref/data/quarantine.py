"""Unusable records are set aside with the reason; too many of them stop the run."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.files import write_atomic
from diffpref.data.clips import Check, check_media
from diffpref.data.columns import PROMPT_CHANGED
from diffpref.data.pairs import LIMIT

__all__ = ["Quarantined", "Usable", "usable_records"]

logger = logging.getLogger(__name__)

SHOWN = 20
"""Reasons in the error that stops a run."""


@dataclass(frozen=True)
class Quarantined:
    """A record that cannot be used: its position in the source, its id where it has one, and why."""

    index: int
    id: str
    reason: str


class Usable(Sequence[Record]):
    """The records of a source that passed; ``quarantined`` lists the others, ``mended`` counts what was changed."""

    def __init__(
        self,
        records: Sequence[Record],
        indices: Sequence[int],
        quarantined: tuple[Quarantined, ...],
        mended: Mapping[str, int],
    ) -> None:
        self._records, self._indices, self.quarantined, self.mended = records, indices, quarantined, mended

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._records[self._indices[index]]

    def __iter__(self) -> Iterator[Record]:
        return (self._records[index] for index in self._indices)


def _check_candidates(record: Record, check: Check) -> None:
    for number, candidate in enumerate(record.candidates):
        if candidate.bytes is not None or candidate.path is not None:
            check(candidate, candidate.path or f"record {record.id!r}, candidate {number}")
        elif candidate.text is None:
            raise DataError(f"record {record.id!r}, candidate {number} holds neither bytes nor a path nor a text")


def usable_records(
    records: Sequence[Record],
    *,
    quarantine: str | PathLike[str] | None = None,
    limit: float = LIMIT,
    decode: bool = True,
    check: Check = check_media,
) -> Usable:
    """Read every record once and keep those that can be used.

    Args:
        records: of a store or a plain table.
        quarantine: a ``quarantine.jsonl`` to write, beside the run's output; written only when something is set aside.
        limit: the largest share that may be set aside.
        decode: also check every picture and clip.
        check: refuses a candidate; by default what cannot be decoded. See `diffpref.data.clips`.

    Raises:
        DataError: no records, or more than ``limit`` of them are unusable; the message shows the first reasons.
    """
    good: list[int] = []
    bad: list[Quarantined] = []
    seen: set[str] = set()
    mended: Counter[str] = Counter()
    for index in range(len(records)):
        identity = ""
        try:
            record = records[index]
            identity = record.id
            if identity in seen:
                raise DataError(f"record {index}: the id {identity!r} appears twice")
            if decode:
                _check_candidates(record, check)
        except DataError as error:
            bad.append(Quarantined(index, identity, str(error)))
        else:
            good.append(index)
            seen.add(identity)
            if changed := record.meta.get(PROMPT_CHANGED):
                mended[changed] += 1
    if bad and quarantine is not None:
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in bad)
        write_atomic(Path(quarantine), lines.encode(errors="backslashreplace"))  # a file's name may hold any byte
    for change, count in mended.items():
        logger.warning("%d prompts: %s", count, change)
    if not records:
        raise DataError("the data hold no records")
    if len(bad) > limit * len(records):
        more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        listed = f"; all are listed in {quarantine}" if quarantine is not None else ""
        lines = "".join(f"\n{entry.reason}" for entry in bad[:SHOWN])
        raise DataError(
            f"{len(bad)} of {len(records)} records are unusable, more than the {limit:.1%} allowed"
            f" (data.max_unusable){listed}:{lines}{more}"
        )
    if bad:
        logger.warning(
            "%d of %d records are unusable and set aside, the first: %s", len(bad), len(records), bad[0].reason
        )
    return Usable(records, good, tuple(bad), dict(mended))

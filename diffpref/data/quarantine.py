"""Unusable records are set aside with the reason; too many of them stop the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.files import write_atomic
from diffpref.data.images import decode_image
from diffpref.data.pairs import LIMIT

__all__ = ["Quarantined", "Usable", "usable_records"]


@dataclass(frozen=True)
class Quarantined:
    """A record that cannot be used: its position in the source, its id where it has one, and why."""

    index: int
    id: str
    reason: str


class Usable(Sequence[Record]):
    """The records of a source that passed; ``quarantined`` lists the others."""

    def __init__(self, records: Sequence[Record], indices: Sequence[int], quarantined: tuple[Quarantined, ...]) -> None:
        self._records, self._indices, self.quarantined = records, indices, quarantined

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._records[self._indices[index]]

    def __iter__(self) -> Iterator[Record]:
        return (self._records[index] for index in self._indices)


def _check_images(record: Record) -> None:
    for number, candidate in enumerate(record.candidates):
        source = candidate.bytes if candidate.bytes is not None else candidate.path
        if source is not None:
            decode_image(source, name=f"candidate {number}")
        elif candidate.text is None:
            raise DataError(f"candidate {number} holds neither bytes nor a path nor a text")


def usable_records(
    records: Sequence[Record],
    *,
    quarantine: str | PathLike[str] | None = None,
    limit: float = LIMIT,
    decode: bool = True,
) -> Usable:
    """Read every record once and keep those that can be used.

    Args:
        records: of a store or a plain table.
        quarantine: a ``quarantine.jsonl`` to write, beside the run's output; written only when something is set aside.
        limit: the largest share that may be set aside.
        decode: also decode every image.

    Raises:
        DataError: no records, or more than ``limit`` of them are unusable; the message shows the first reasons.
    """
    good: list[int] = []
    bad: list[Quarantined] = []
    seen: set[str] = set()
    for index in range(len(records)):
        identity = ""
        try:
            record = records[index]
            identity = record.id
            if identity in seen:
                raise DataError(f"the id {identity!r} appears twice")
            if decode:
                _check_images(record)
        except DataError as error:
            bad.append(Quarantined(index, identity, str(error)))
        else:
            good.append(index)
            seen.add(identity)
    if bad and quarantine is not None:
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in bad)
        write_atomic(Path(quarantine), lines)
    if not records:
        raise DataError("the data hold no records")
    if len(bad) > limit * len(records):
        shown = "; ".join(f"record {entry.index}: {entry.reason}" for entry in bad[:3])
        listed = f"; all are listed in {quarantine}" if quarantine is not None else ""
        raise DataError(f"{len(bad)} of {len(records)} records are unusable, more than {limit:.1%}: {shown}{listed}")
    return Usable(records, good, tuple(bad))

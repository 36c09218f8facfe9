"""A store that grows a part at a time, so that whatever stops the work costs no more than the part in the making.

The folder first gets ``plan.json``, then parts, each complete or absent, and its manifest last: a folder without a
manifest is no store yet. The plan decides which record stands in which part; a folder of another plan is refused.
Any number of processes may work on one folder: each part is claimed by one, and the first to find nothing left to do
writes the manifest.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.files import publish_file, read_json, sha256, write_atomic, write_json
from diffpref.data import Store, read_store
from diffpref.data.parts import PartReader, write_part
from diffpref.data.schema import SCHEMA_VERSION, to_table
from diffpref.data.store import FORMAT, LIBRARIES, MANIFEST
from diffpref.generation.claims import Claims
from diffpref.generation.unusable import unusable_scores

__all__ = ["PLAN", "SOURCES", "GrowingStore"]

logger = logging.getLogger(__name__)

PLAN = "plan.json"
CLAIMS = ".claims"
SOURCES = ".sources"
"""Where what several models draw lies until it is put together."""
QUARANTINE = "quarantine.jsonl"
SHOWN = 5
PAUSE, MAX_PAUSE, PATIENCE = 0.05, 2.0, 60.0
"""Seconds between looks at parts that others make, at first and at most, and after which the wait is told."""


class GrowingStore:
    """The folder of a store in the making.

    Args:
        folder: new or empty, or left by an earlier run of the same plan.
        plan: JSON-ready values that decide the content.
        num_parts: how many parts the plan has.

    Raises:
        DataError: the folder was made by another plan, and the message says where they differ; or by something else.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], num_parts: int) -> None:
        self.folder, self.plan, self.num_parts = Path(folder), plan, num_parts
        self.claims = Claims(self.folder / CLAIMS)
        if not (self.folder / PLAN).is_file():
            self._begin()
        try:
            found = read_json(self.folder / PLAN)
        except ValueError as error:
            raise DataError(f"{self.folder / PLAN} is damaged ({error}); remove the folder") from error
        if differences := list(_differences(found, dict(plan))):
            more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise DataError(
                f"{self.folder} was made by another plan: {'; '.join(differences[:SHOWN])}{more};"
                " choose another folder, or remove this one"
            )

    def _begin(self) -> None:
        """Write the plan into a folder that holds nothing but what a killed or a simultaneous start has left."""
        if self.folder.exists():
            strange = not self.folder.is_dir() or [
                path for path in self.folder.iterdir() if not path.name.startswith((CLAIMS, SOURCES, f".tmp-{PLAN}"))
            ]
            if strange and not (self.folder / PLAN).is_file():
                raise DataError(f"{self.folder} exists already and holds no {PLAN}; choose another folder or remove it")
        with self.claims.take(PLAN, wait=True):
            if not (self.folder / PLAN).is_file():
                write_json(self.folder / PLAN, dict(self.plan))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / MANIFEST).is_file()

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not there yet."""
        there = set(os.listdir(self.folder))
        return [number for number in range(self.num_parts) if self._path(number).name not in there]

    def fill(
        self,
        make: Callable[[int], Sequence[Record]],
        tell: Callable[[Sequence[int]], None] = lambda missing: None,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Make parts until all are there, whoever makes them.

        A part is claimed while it is made; when its process dies, another makes it. Process ``rank`` begins with parts
        ``rank``, ``rank + num_ranks`` …, then helps with those of the others, and at last waits for them.

        Args:
            make: part number -> its records.
            tell: called with the numbers of the missing parts at the start and after each part.
            rank: number of this process.
            num_ranks: how many there are.
        """
        tell(self.missing())
        pause, waited = PAUSE, 0.0
        while missing := sorted(self.missing(), key=lambda number: (number % num_ranks != rank, number)):
            claimed = [number for number in missing if self._make(number, make, tell)]
            if claimed:
                pause, waited = PAUSE, 0.0
                continue
            if waited >= PATIENCE:
                logger.info("waiting for part %d, claimed by %s", missing[0], self.claims.holder(_claim(missing[0])))
                waited = 0.0
            time.sleep(pause)
            pause, waited = min(2 * pause, MAX_PAUSE), waited + pause

    def _make(
        self, number: int, make: Callable[[int], Sequence[Record]], tell: Callable[[Sequence[int]], None]
    ) -> bool:
        """Make a part unless another process has made it or holds its claim; return whether this one did."""
        if self._path(number).is_file():
            return False
        with self.claims.take(_claim(number)) as ours:
            if not ours or self._path(number).is_file():  # finished between the look and the claim
                return False
            self._add(number, make(number))
        tell(self.missing())
        return True

    def _add(self, number: int, records: Sequence[Record]) -> None:
        with publish_file(self._path(number)) as path:
            write_part(path, to_table(records))

    def finish(self, max_unusable: float = 1.0) -> Store:
        """Write the manifest, unless another process has, and open the store.

        Args:
            max_unusable: the largest share of a score that may be NaN or infinite.

        Raises:
            DataError: more are; the parts stay, and a higher limit finishes the store.
        """
        with self.claims.take(MANIFEST, wait=True):
            if not self.is_complete:
                self._publish(max_unusable)
            for leftover in self.folder.glob(".tmp-*"):
                leftover.unlink(missing_ok=True)
        self.claims.remove()
        return read_store(self.folder, verify="counts")

    def _publish(self, max_unusable: float) -> None:
        unusable = unusable_scores([self._path(n) for n in range(self.num_parts)], self.plan.get("scores", {}))
        unusable.check(max_unusable)
        if unusable.found:
            lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in unusable.found)
            write_atomic(self.folder / QUARANTINE, lines)
        write_json(self.folder / MANIFEST, {**self._manifest(), "unusable_scores": unusable.counts()})

    def _manifest(self) -> dict[str, Any]:
        import diffpref

        paths = [self._path(number) for number in range(self.num_parts)]
        counts = [len(PartReader(path)) for path in paths]
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "num_records": sum(counts),
            "parts": [
                {"file": path.name, "num_records": count, "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path, count in zip(paths, counts, strict=True)
            ],
            "generator": {name: value for name, value in self.plan.items() if name != "prompts"},
            "libraries": {name: diffpref.__version__ if name == "diffpref" else version(name) for name in LIBRARIES},
        }


def _claim(number: int) -> str:
    return f"{number:05d}"


def _differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Yield a phrase for each value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            name = f"{path}.{key}" if path else str(key)
            if key not in there or key not in here:
                yield f"{name}: only {'here' if key in here else 'there'}"
            else:
                yield from _differences(there[key], here[key], name)
    elif isinstance(there, list) and isinstance(here, list):
        if len(there) != len(here):
            yield f"{path}: {len(there)} entries there, {len(here)} here"
        else:
            for index, (one, other) in enumerate(zip(there, here, strict=True)):
                yield from _differences(one, other, f"{path}[{index}]")
    elif there != here:
        yield f"{path}: {there!r} there, {here!r} here"

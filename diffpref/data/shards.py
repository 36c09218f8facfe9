"""Tar shards as rows: ``000.jpg 000.txt 000.json`` are one sample, as in webdataset.

A sample's columns are the suffixes of its members without the kind of file: ``000.chosen.png`` gives ``chosen``. A
plain picture gives ``image``, a plain text ``prompt``, and the keys of a plain JSON object are columns of their own.
"""

from __future__ import annotations

import json
import logging
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError
from diffpref.data.index import INDEX, FileEntry, verify_file
from diffpref.data.kinds import MEDIA
from diffpref.data.tar import Member, members

__all__ = ["BadShard", "TarShards"]

logger = logging.getLogger(__name__)


class BadShard(DataError):
    """A shard that cannot be read to its end; says how far it can."""


class _Shard:
    """Where the samples of one tar file begin; found by one pass over its headers."""

    def __init__(self, path: Path, entry: FileEntry | None, verify: str) -> None:
        self.path = path
        self.starts = array("q")
        keys: dict[str, None] = {}
        last, header = "", 0
        try:
            for member in members(path):
                if member.key != last:
                    if member.key in keys:
                        raise DataError(f"{path}: the members of key '{member.key}' do not stand together")
                    keys[member.key] = None
                    self.starts.append(member.header)
                    last = member.key
                header = member.start + member.size
        except OSError as error:
            raise BadShard(f"{path}: cannot be read ({error.strerror})") from error
        except DataError as error:  # the sample that it stopped in may lack members
            raise BadShard(f"{error}; {_readable(entry, list(keys)[:-1])}") from error
        self.stop = header
        if entry is not None:
            try:
                verify_file(path, entry, verify)
            except DataError as error:
                raise BadShard(f"{error}; {_readable(entry, list(keys))}") from error
            if len(self.starts) != entry.num_rows:
                raise BadShard(f"{path}: {_readable(entry, list(keys))}")

    def __len__(self) -> int:
        return len(self.starts)

    def sample(self, number: int) -> tuple[str, dict[str, Any]]:
        """Return the key and the columns of a sample."""
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else self.stop
        found = list(members(self.path, self.starts[number], stop))
        row: dict[str, Any] = {}
        with open(self.path, "rb") as file:
            for member in found:
                file.seek(member.start)
                try:
                    given = _columns(member, file.read(member.size))
                except DataError as error:
                    raise DataError(f"{self.path}, {error}") from error
                if twice := sorted(set(row) & set(given)):
                    raise DataError(f"{self.path}, {member.key}: column '{twice[0]}' is given by two members")
                row |= given
        return found[0].key, row


def _readable(entry: FileEntry | None, keys: Sequence[str]) -> str:
    expected = f" of {entry.num_rows}" if entry is not None else ""
    last = f", last key '{keys[-1]}'" if keys else ""
    return f"{len(keys)}{expected} samples readable{last}"


def _columns(member: Member, content: bytes) -> dict[str, Any]:
    column, _, kind = member.suffix.rpartition(".")
    if kind in MEDIA:
        return {column or "image": content}
    try:
        text = content.decode("utf-8-sig")
        if kind == "txt":
            return {column or "prompt": text.rstrip("\r\n")}
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{member.key}.{member.suffix}: cannot be read as {kind}: {error}") from error
    if column:
        return {column: value}
    if not isinstance(value, dict):
        raise DataError(f"{member.key}.{member.suffix}: expected an object, got {type(value).__name__}")
    return value


class TarShards(Sequence[Mapping[str, Any]]):
    """The samples of several tar files, found one at a time.

    Args:
        paths: of the shards.
        entries: what an index tells of them, by name.
        verify: ``"checksums"`` or ``"counts"``, where there is an index.
        on_bad: ``"raise"``, or ``"skip"`` to leave out a shard that is damaged, with a warning.

    Raises:
        DataError: a bad shard (under ``"raise"``), or none that can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        entries: Mapping[str, FileEntry] | None = None,
        *,
        verify: str = "checksums",
        on_bad: str = "raise",
    ) -> None:
        if on_bad not in ("raise", "skip"):
            raise DataError(f"on_bad_shard is 'raise' or 'skip', got {on_bad!r}")
        if entries is not None and (strange := [path for path in paths if path.name not in entries]):
            raise DataError(f"{strange[0]}: is not in {INDEX}; run 'diffpref index' again")
        self.shards: list[_Shard] = []
        self.skipped: dict[str, str] = {}
        for path in paths:
            try:
                self.shards.append(_Shard(path, (entries or {}).get(path.name), verify))
            except BadShard as error:
                if on_bad == "raise":
                    raise
                self.skipped[path.name] = str(error)
                logger.warning("shard left out: %s", error)
        if not self.shards:
            raise DataError(f"none of {len(paths)} shards can be read: {'; '.join(list(self.skipped.values())[:3])}")
        self._starts = [0, *accumulate(map(len, self.shards))]
        self.columns = [name for name in self[0] if isinstance(name, str)] if len(self) else []

    def __len__(self) -> int:
        return self._starts[-1]

    def _find(self, position: int) -> tuple[_Shard, int]:
        shard = bisect_right(self._starts, position) - 1
        return self.shards[shard], position - self._starts[shard]

    def __getitem__(self, index: Any) -> Any:
        shard, number = self._find(index)
        try:
            key, row = shard.sample(number)
        except OSError as error:
            raise DataError(f"{shard.path}: cannot be read ({error.strerror})") from error
        return {"__key__": key, **row}

    def where(self, index: int) -> str:
        """Say where a row stands."""
        shard, number = self._find(index)
        return f"{shard.path}, sample {number}"

    @property
    def counts(self) -> dict[Path, int]:
        """How many samples each shard holds."""
        return {shard.path: len(shard) for shard in self.shards}

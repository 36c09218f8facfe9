"""Plain preference tables: parquet or JSONL with columns ``prompt``, ``chosen`` and ``rejected``.

An image is given as encoded bytes, as a path (relative ones are seen from the table's folder), or as the
``{bytes, path}`` of a Hugging Face image column. A column ``id`` is used where present; else a row's number is its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import DataError
from diffpref.data.parts import Parts

__all__ = ["COLUMNS", "PlainTable", "open_plain"]

COLUMNS = ("prompt", "chosen", "rejected")


def _image(value: Any, column: str, folder: Path, where: str) -> Candidate:
    given = value if isinstance(value, Mapping) else {"bytes": value} if isinstance(value, bytes) else {"path": value}
    data, path = given.get("bytes"), given.get("path")
    if isinstance(data, bytes) and data:
        return Candidate(bytes=data)
    if isinstance(path, str) and path:
        return Candidate(path=str(folder / path))
    raise DataError(f"{where}: {column} must be image bytes or a path, got {type(value).__name__}")


class PlainTable(Sequence[Record]):
    """A table of chosen and rejected images as records of two candidates, the first judged better."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
        self._rows, self._folder, self._name = rows, folder, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        return self._record(self._rows[index], position)

    def __iter__(self) -> Iterator[Record]:
        return (self[position] for position in range(len(self)))

    def _record(self, row: Mapping[str, Any], position: int) -> Record:
        where = f"{self._name}, row {position}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected an object with {', '.join(COLUMNS)}, got {type(row).__name__}")
        _require(row, where)
        if not isinstance(row["prompt"], str):
            raise DataError(f"{where}: prompt must be a text, got {type(row['prompt']).__name__}")
        identity = row.get("id")
        return Record(
            id=f"{position:08d}" if identity is None else str(identity),
            prompt=row["prompt"],
            candidates=tuple(_image(row[side], side, self._folder, where) for side in ("chosen", "rejected")),
            judgements=(Judgement(first=0, second=1, probability=1.0),),
            source=self._name,
        )


def _require(columns: Any, where: str) -> None:
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(missing)}; needed are prompt (text), chosen and rejected (image bytes or"
            f" paths); found: {', '.join(columns) or 'nothing'}"
        )


def open_plain(files: Sequence[Path], name: str) -> PlainTable:
    """Open parquet or JSONL files as one table.

    Raises:
        DataError: a column is missing, or a line is not JSON.
    """
    folder = files[0].parent
    if files[0].suffix == ".parquet":
        parts = Parts(files)
        for reader in parts.readers:
            _require(reader.columns, str(reader.path))
        return PlainTable(parts, folder, name)
    rows: list[Mapping[str, Any]] = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read as text: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {number}: not JSON: {error}") from error
    if rows and isinstance(rows[0], Mapping):
        _require(rows[0], f"{files[0]}, first line")
    return PlainTable(rows, folder, name)

"""Parquet files read a row at a time: each access reads one small row group, the last of which is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from diffpref.core.errors import DataError

__all__ = ["PartReader", "Parts", "write_part"]

ROW_GROUP_SIZE = 64


def write_part(path: Path, table: pyarrow.Table) -> None:
    """Write one parquet file in row groups of `ROW_GROUP_SIZE`, so that one row is found without reading the rest."""
    parquet.write_table(table, path, row_group_size=ROW_GROUP_SIZE, compression="zstd", write_page_index=True)


class PartReader:
    """One parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
        groups = self._file.metadata
        self.starts = [0, *accumulate(groups.row_group(i).num_rows for i in range(groups.num_row_groups))]
        self._group, self._rows = -1, []  # type: int, list[dict[str, Any]]

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._file.schema_arrow.names)

    def __getitem__(self, row: int) -> dict[str, Any]:
        group = bisect_right(self.starts, row) - 1
        if group != self._group:
            try:
                self._rows = self._file.read_row_group(group).to_pylist()
            except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:  # also no UTF-8
                first, last = self.starts[group], self.starts[group + 1] - 1
                raise DataError(f"{self.path}: rows {first} to {last} cannot be read: {error}") from error
            self._group = group
        return self._rows[row - self.starts[group]]


class Parts(Sequence[dict[str, Any]]):
    """Several parquet files as one sequence of rows."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.readers = [PartReader(path) for path in paths]
        self._starts = [0, *accumulate(len(reader) for reader in self.readers)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        part = bisect_right(self._starts, position) - 1
        return self.readers[part][position - self._starts[part]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (reader[row] for reader in self.readers for row in range(len(reader)))

"""Plain tables as records: rows of whatever reader, and what their columns mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.columns import Columns
from diffpref.data.parts import Parts
from diffpref.data.texts import TextColumns

__all__ = ["DatasetRows", "ParquetRows", "PlainTable", "Rows"]


class Rows(Protocol):
    """Rows of a table, found one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Return column -> value of a row.

        Raises:
            DataError: the row cannot be read.
        """
        ...

    def where(self, index: int) -> str:
        """Say where a row stands."""
        ...

    @property
    def columns(self) -> Collection[str]:
        """The names of the columns: of every row, or of the first that can be read."""
        ...

    @property
    def counts(self) -> Mapping[Path, int]:
        """How many rows each file holds."""
        ...


class PlainTable(Sequence[Record]):
    """A table as records; a row is read, and checked, when it is asked for.

    Args:
        rows: of the table.
        wanted: meaning -> column, see `diffpref.data.columns`.
        folder: relative paths of pictures are seen from it.
        name: of the table, for errors and as the records' source.
        texts: whether prompt and candidates are texts, and not pictures.

    Raises:
        DataError: the columns make no records.
    """

    def __init__(
        self, rows: Rows, wanted: Mapping[str, str] | None, folder: Path, name: str, texts: bool = False
    ) -> None:
        self.rows, self._name = rows, name
        reader: type[Columns] | type[TextColumns] = TextColumns if texts else Columns
        self.columns = reader.find(rows.columns, wanted, folder, name)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        where = self.rows.where(position)
        return self.columns.record(self.rows[position], f"{position:08d}", where, self._name)

    def __iter__(self) -> Iterator[Record]:
        return (self[position] for position in range(len(self)))


class DatasetRows:
    """The rows of a folder that ``Dataset.save_to_disk`` of the library datasets wrote.

    Raises:
        DataError: it cannot be read, or holds several splits.
    """

    def __init__(self, folder: Path) -> None:
        import datasets

        try:
            found = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: cannot be read as a dataset ({str(error).splitlines()[0][:200]})") from error
        if isinstance(found, datasets.DatasetDict):
            if len(found) != 1:
                raise DataError(f"{folder}: holds the splits {', '.join(found)}; name the folder of one of them")
            found = next(iter(found.values()))
        self._rows, self._folder = found, folder
        self.columns = list(found.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]

    def where(self, index: int) -> str:
        """Say where a row stands."""
        return f"{self._folder}, row {index}"

    @property
    def counts(self) -> dict[Path, int]:
        """How many rows the folder holds."""
        return {self._folder: len(self)}


class ParquetRows:
    """The rows of parquet files, all of the same columns."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._parts = Parts(files)
        self.columns = self._parts.readers[0].columns
        for reader in self._parts.readers[1:]:
            if absent := [column for column in self.columns if column not in reader.columns]:
                raise DataError(f"{reader.path}: no column {', '.join(absent)}, which {files[0].name} has")

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Any:
        return self._parts[index]

    def where(self, index: int) -> str:
        """Say where a row stands."""
        for reader in self._parts.readers:
            if index < len(reader):
                return f"{reader.path}, row {index}"
            index -= len(reader)
        raise IndexError(index)

    @property
    def counts(self) -> dict[Path, int]:
        """How many rows each file holds."""
        return {reader.path: len(reader) for reader in self._parts.readers}

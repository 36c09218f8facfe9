"""Stores: folders of parquet parts with a manifest, published complete or not at all.

``part-00000.parquet`` … hold the records in small row groups; ``manifest.json`` holds their counts and checksums, the
schema version, how the records were generated and by which libraries. ``datasets.load_dataset("parquet",
data_files="<folder>/*.parquet")`` reads a store without diffpref.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.files import publish_folder, read_json, sha256, write_json
from diffpref.data.parts import Parts, write_part
from diffpref.data.schema import SCHEMA_VERSION, from_row, to_table

__all__ = ["FORMAT", "MANIFEST", "Store", "StoreWriter", "read_store", "write_store"]

FORMAT = 1
MANIFEST = "manifest.json"
ROWS_PER_PART = 4096
LIBRARIES = ("diffpref", "pyarrow", "pillow", "torch", "diffusers", "transformers")


class Store(Sequence[Record]):
    """The records of a store, found one at a time; see `read_store`."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self._rows = Parts([folder / part["file"] for part in manifest["parts"]])

    @property
    def digest(self) -> str:
        """The sha256 of the parts' checksums: equal for equal contents, whatever the folder is called."""
        return hashlib.sha256("".join(part["sha256"] for part in self.manifest["parts"]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return from_row(self._rows[index])

    def __iter__(self) -> Iterator[Record]:
        return map(from_row, self._rows)

    def __repr__(self) -> str:
        return f"Store('{self.folder}', {len(self)} records)"


class StoreWriter:
    """Writes a store record by record; the folder appears when the ``with`` block ends without an error.

    Args:
        folder: where the store shall be.
        generator: how the records are made, kept in the manifest.
        rows_per_part: records of one parquet file; so many are held in memory.
        replace: swap an existing store for the new one.

    Raises:
        DataError: the folder exists (and not ``replace``), an id appears twice, or a field has the wrong type.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        generator: Mapping[str, Any] | None = None,
        *,
        rows_per_part: int = ROWS_PER_PART,
        replace: bool = False,
    ) -> None:
        self.folder, self.generator, self.rows_per_part = Path(folder), dict(generator or {}), rows_per_part
        self._replace, self._stack = replace, ExitStack()
        self._waiting: list[Record] = []
        self._parts: list[dict[str, Any]] = []
        self._ids: set[str] = set()

    def __enter__(self) -> StoreWriter:
        if self.folder.exists() and not self._replace:
            raise DataError(f"{self.folder} exists already; choose another folder or remove it")
        self._temporary = self._stack.enter_context(publish_folder(self.folder, replace=self._replace))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            with self._stack:
                self._flush()
                write_json(self._temporary / MANIFEST, self._manifest())
        else:
            self._stack.__exit__(kind, error, traceback)

    def write(self, record: Record) -> None:
        """Append one record."""
        if record.id in self._ids:
            raise DataError(f"record id {record.id!r} appears twice; ids key the random numbers and must be unique")
        self._ids.add(record.id)
        self._waiting.append(record)
        if len(self._waiting) >= self.rows_per_part:
            self._flush()

    def extend(self, records: Iterable[Record]) -> None:
        """Append several."""
        for record in records:
            self.write(record)

    def _flush(self) -> None:
        if not self._waiting:
            return
        path = self._temporary / f"part-{len(self._parts):05d}.parquet"
        try:
            write_part(path, to_table(self._waiting))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, UnicodeEncodeError) as error:
            first, last = self._waiting[0].id, self._waiting[-1].id
            raise DataError(f"a record from {first!r} to {last!r} has a field of the wrong type: {error}") from error
        self._parts.append(
            {
                "file": path.name,
                "num_records": len(self._waiting),
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
            }
        )
        self._waiting = []

    def _manifest(self) -> dict[str, Any]:
        import diffpref

        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "num_records": len(self._ids),
            "parts": self._parts,
            "generator": self.generator,
            "libraries": {name: diffpref.__version__ if name == "diffpref" else version(name) for name in LIBRARIES},
        }


def write_store(
    folder: str | PathLike[str],
    records: Iterable[Record],
    generator: Mapping[str, Any] | None = None,
    *,
    rows_per_part: int = ROWS_PER_PART,
    replace: bool = False,
) -> Store:
    """Write records as a store and open it; the arguments are those of `StoreWriter`."""
    with StoreWriter(folder, generator, rows_per_part=rows_per_part, replace=replace) as writer:
        writer.extend(records)
    return read_store(folder, verify="counts")


def read_store(folder: str | PathLike[str], *, verify: str = "checksums") -> Store:
    """Open a store.

    Args:
        folder: of the store.
        verify: ``"checksums"`` reads every part once (about a second a GB); ``"counts"`` compares sizes and counts.

    Raises:
        DataError: not a store, of a newer format, or a part is missing, cut short or changed; the message names it.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not a store: it has no {MANIFEST}")
    try:
        manifest = read_json(folder / MANIFEST)
        known = (manifest["format"], manifest["schema_version"]) <= (FORMAT, SCHEMA_VERSION)
        expected = [(part["file"], part["num_records"], part["bytes"], part["sha256"]) for part in manifest["parts"]]
        num_records = int(manifest["num_records"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged: {error}") from error
    if not known:
        raise DataError(
            f"{folder} has format {manifest['format']}, schema {manifest['schema_version']}; this diffpref reads up to"
            f" format {FORMAT}, schema {SCHEMA_VERSION}: update diffpref"
        )
    for file, _, size, digest in expected:
        path = folder / file
        if Path(file).name != file or not path.is_file():
            raise DataError(f"{folder}: part {file} is missing")
        if path.stat().st_size != size:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, expected {size:,}; copy or generate it again")
        if verify == "checksums" and sha256(path) != digest:
            raise DataError(f"{path}: its checksum differs from the manifest's; copy or generate it again")
    store = Store(folder, manifest)
    for (file, count, _, _), reader in zip(expected, store._rows.readers, strict=True):
        if len(reader) != count:
            raise DataError(f"{folder / file}: {len(reader)} records, expected {count}")
    if len(store) != num_records:
        raise DataError(f"{folder}: the parts hold {len(store)} records, the manifest promises {num_records}")
    return store

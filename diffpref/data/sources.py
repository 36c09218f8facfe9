"""Opening whatever a user has: a store, tar shards, a table, or a folder of pictures with captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.folder import PictureFolder
from diffpref.data.index import INDEX, FileEntry, read_index, verify_file, write_entries
from diffpref.data.jsonl import JsonLines
from diffpref.data.plain import DatasetRows, ParquetRows, PlainTable, Rows
from diffpref.data.shards import TarShards
from diffpref.data.store import MANIFEST, read_store

__all__ = ["index_source", "open_records"]

_EXPECTED = "a store (with manifest.json), .tar shards, .parquet or .jsonl files, or pictures with captions"


def open_records(
    source: str | PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_shard: str = "raise",
    verify: str = "checksums",
    texts: bool = False,
) -> Sequence[Record]:
    """Open preference data.

    Args:
        source: a store's folder; or a ``.tar``, ``.parquet`` or ``.jsonl`` file, or a folder of one of these kinds; or
            a folder of pictures with captions beside them; or what the library datasets saved to disk.
        columns: of a source that is no store: meaning -> column, see `diffpref.data.columns`.
        on_bad_shard: ``"raise"``, or ``"skip"`` to leave out tar shards that are damaged, with a warning.
        verify: ``"checksums"`` reads every file that a store's manifest or an index lists; ``"counts"`` does not.
        texts: whether prompt and candidates are texts: TRL's formats, see `diffpref.data.texts`.

    Raises:
        DataError: nothing there, or not of these kinds, damaged, or its columns make no records.
    """
    path = _path(source)
    if (path / MANIFEST).is_file():
        if columns:
            raise DataError(f"{path} is a store, whose columns are fixed; leave data.columns out")
        return read_store(path, verify=verify)
    folder, entries = path, read_index(path)
    if path.is_file():
        folder = path.parent
        listed = (read_index(folder) or {}).get(path.name)
        entries = None if listed is None else {path.name: listed}
    rows = _rows(path, entries, on_bad_shard, verify)
    if len(rows) == 0:
        raise DataError(f"{path}: holds no rows")
    _verify(rows, entries, folder, verify)
    return PlainTable(rows, columns, folder, str(path), texts)


def _path(source: str | PathLike[str]) -> Path:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(source)):
        raise DataError(f"'{source}': a source is a file or folder of this machine, never a command or an address")
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return path


def _rows(path: Path, entries: Mapping[str, FileEntry] | None, on_bad_shard: str, verify: str) -> Rows:
    if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        return DatasetRows(path)
    for suffix in (".tar", ".parquet", ".jsonl"):
        files = [path] if path.suffix == suffix and path.is_file() else sorted(path.glob(f"*{suffix}"))
        listed = [name for name in entries or () if name.endswith(suffix) and "/" not in name]
        if files and listed:  # one that is gone is missed, too
            files = sorted({*files, *(files[0].parent / name for name in listed)})
        if files and suffix == ".tar":
            return TarShards(files, entries, verify=verify, on_bad=on_bad_shard)
        if files:
            return ParquetRows(files) if suffix == ".parquet" else JsonLines(files)
    if path.is_dir() and len(pictures := PictureFolder(path)):
        return pictures
    raise DataError(f"{path} holds no preference data: expected {_EXPECTED}")


def _verify(rows: Rows, entries: Mapping[str, FileEntry] | None, folder: Path, verify: str) -> None:
    """Compare files with their index; shards have been."""
    if entries is None or isinstance(rows, TarShards):
        return
    counts = {path.relative_to(folder).as_posix(): count for path, count in rows.counts.items()}
    for name, entry in entries.items():
        verify_file(folder / name, entry, verify)
        if counts.get(name) != entry.num_rows:
            raise DataError(f"{folder / name}: {counts.get(name, 0)} rows, expected {entry.num_rows}")
    if strange := sorted(set(counts) - set(entries)):
        raise DataError(f"{folder / strange[0]}: is not in {INDEX}; run 'diffpref index' again")


def index_source(source: str | PathLike[str]) -> list[FileEntry]:
    """Write ``index.json`` beside a source that is no store: the size, rows and checksum of each file.

    Raises:
        DataError: the source cannot be read as it is, or is a store, whose manifest says the same.
    """
    path = _path(source)
    if (path / MANIFEST).is_file():
        raise DataError(f"{path} is a store; its {MANIFEST} is its index")
    rows = _rows(path, None, "raise", "counts")
    return write_entries(path if path.is_dir() else path.parent, rows.counts, keep=path.is_file())

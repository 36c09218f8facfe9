"""Opening whatever a user has: a store, or a plain table of chosen and rejected images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.plain import open_plain
from diffpref.data.store import MANIFEST, read_store

__all__ = ["open_records"]


def open_records(source: str | PathLike[str]) -> Sequence[Record]:
    """Open preference data.

    Args:
        source: a store's folder; or a ``.parquet`` or ``.jsonl`` file, or a folder of one of these kinds, with the
            columns ``prompt``, ``chosen`` and ``rejected``.

    Raises:
        DataError: nothing there, or not of these kinds, or a column is missing.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if (path / MANIFEST).is_file():
        return read_store(path)
    for suffix in (".parquet", ".jsonl"):
        files = [path] if path.suffix == suffix and path.is_file() else sorted(path.glob(f"*{suffix}"))
        if files:
            records = open_plain(files, str(path))
            if len(records) == 0:
                raise DataError(f"{path}: holds no rows")
            return records
    raise DataError(
        f"{path} holds no preference data: expected a store (with {MANIFEST}), or .parquet or .jsonl files with the"
        " columns prompt, chosen and rejected"
    )

"""The index of a source: its files with sizes, counts and checksums, so that nothing is lost or changed in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from diffpref.core.errors import DataError
from diffpref.core.files import read_json, sha256, write_json

__all__ = ["INDEX", "FileEntry", "read_index", "verify_file", "write_entries"]

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """What an index tells of a file."""

    file: str
    bytes: int
    num_rows: int
    sha256: str


def read_index(folder: Path) -> dict[str, FileEntry] | None:
    """Return the entries of a folder's index by file name; None where there is no index.

    Raises:
        DataError: it is damaged, or of a newer format.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        if found["format"] > FORMAT:
            raise DataError(f"{path} has format {found['format']}; this diffpref reads up to {FORMAT}: update diffpref")
        entries = [
            FileEntry(str(one["file"]), int(one["bytes"]), int(one["num_rows"]), str(one["sha256"]))
            for one in found["files"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); run 'diffpref index' again") from error
    return {entry.file: entry for entry in entries}


def verify_file(path: Path, entry: FileEntry, verify: str = "checksums") -> None:
    """Compare a file with its entry: its size, and under ``"checksums"`` its content.

    Raises:
        DataError: they differ; the message names the file.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: is in the index, but cannot be read ({error.strerror})") from error
    if size != entry.bytes:
        raise DataError(f"{path}: {size:,} bytes, expected {entry.bytes:,}; copy it again")
    if verify == "checksums" and sha256(path) != entry.sha256:
        raise DataError(f"{path}: its checksum differs from the index's; copy it again")


def write_entries(folder: Path, counts: Mapping[Path, int], *, keep: bool = False) -> list[FileEntry]:
    """Write the index of a folder from its files and their numbers of rows; return the new entries.

    Args:
        folder: where the index lies.
        counts: file -> rows.
        keep: what the index tells of other files.
    """
    entries = [
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, count, sha256(path))
        for path, count in counts.items()
    ]
    others = (read_index(folder) or {}) if keep else {}
    listed = {**others, **{entry.file: entry for entry in entries}}
    write_json(folder / INDEX, {"format": FORMAT, "files": [asdict(listed[name]) for name in sorted(listed)]})
    return entries

"""Files and folders that are either complete or absent: written under a temporary name, synced, renamed.

The one place from which the package writes what must survive; `diffpref.core.failpoints` is passed before each step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffpref.core.failpoints import reach

__all__ = [
    "append_line",
    "publish_file",
    "publish_folder",
    "read_json",
    "remove_folder",
    "remove_leftovers",
    "sha256",
    "sync_folder",
    "write_atomic",
    "write_json",
]


def _sync(path: Path) -> None:
    reach("sync", path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(path: Path, target: Path) -> None:
    reach("rename", path)
    path.rename(target)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        reach("make", folder)
        folder.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush every file below a folder, and the folder itself, to disk, with the modes that the umask asks for."""
    umask = os.umask(0)
    os.umask(umask)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o666 & ~umask)  # safetensors writes 0600
        _sync(path)
    _sync(folder)


@contextmanager
def publish_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty sibling folder to fill; on success it is renamed to ``target``, on an error removed.

    Args:
        target: the folder to publish. It must not exist unless ``replace``.
        replace: swap an existing folder for the new one.
    """
    target = Path(target)
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists already")
    _make(target.parent)
    temporary = target.parent / f".tmp-{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _make(temporary)
        yield temporary
        sync_folder(temporary)
        if target.exists():
            _swap(temporary, target)
        else:
            _rename(temporary, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` for a library to write to; on success it takes the place of ``path``."""
    path = Path(path)
    _make(path.parent)
    temporary = path.parent / f".tmp-{path.name}-{os.getpid()}"
    try:
        reach("open", path)
        yield temporary
        _sync(temporary)
        reach("rename", path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _swap(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another; a kill in between is mended by `remove_leftovers`."""
    old = target.parent / f".old-{target.name}-{os.getpid()}"
    _rename(target, old)
    try:
        _rename(temporary, target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def write_atomic(path: Path, content: str | bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: of the file; its folder is made.
        content: text (as UTF-8), bytes, or the pieces of something too large to be held whole.
    """
    path = Path(path)
    _make(path.parent)
    temporary = path.parent / f".tmp-{path.name}-{os.getpid()}"
    pieces = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    try:
        reach("open", path)
        with open(temporary, "wb", buffering=0) as file:
            for piece in pieces:
                _write_all(file.fileno(), piece, path)
            reach("sync", path)
            os.fsync(file.fileno())
        reach("rename", path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_all(descriptor: int, piece: bytes | memoryview, path: Path) -> None:
    """Write every byte: the system may take fewer than it is given, first of all when the disk is nearly full."""
    rest = memoryview(piece).cast("B")
    while rest.nbytes:
        reach("write", path)
        rest = rest[os.write(descriptor, rest) :]


def append_line(path: Path, line: str) -> None:
    """Add one line to a file, or, on an error, nothing: what was written of it is cut off again."""
    path = Path(path)
    reach("open", path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, f"{line}\n".encode(), path)
        except BaseException:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it is never seen in part: a kill leaves a leftover, which `remove_leftovers` removes."""
    leftover = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    shutil.rmtree(leftover, ignore_errors=True)
    _rename(folder, leftover)
    shutil.rmtree(leftover)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove from a folder what a killed process left there half-written; return what that was.

    A folder that was about to be replaced is put back. No other process may be writing to the folder.
    """
    found = sorted([*Path(folder).glob(".tmp-*"), *Path(folder).glob(".old-*")])
    for path in found:
        kept, _, _ = path.name.removeprefix(".old-").rpartition("-")
        if path.name.startswith(".old-") and not (path.parent / kept).exists():
            path.rename(path.parent / kept)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

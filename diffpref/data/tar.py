"""A tar file read with suspicion: plain files of allowed kinds only, nothing unpacked, damage never passed over.

Of the formats in use (ustar, GNU, pax) it understands names and sizes. Links, devices, sparse files, names that lead
outside, members that could hold code, and archives of nothing are refused. An archive must end as tar archives end,
with two empty blocks and nothing after them, so that one that was cut short, or joined to another, is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from diffpref.core.errors import DataError
from diffpref.data.kinds import MEDIA

__all__ = ["Member", "members"]

ALLOWED = MEDIA | {"txt", "json"}
MAX_MEMBER = 64 * 2**20
MAX_HEADER = 16 * 2**10  # of an extended header: a long name
MAX_EMPTY = 1000
BLOCK = 512
_REFUSED = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


@dataclass(frozen=True)
class Member:
    """A file in a tar file.

    Args:
        key: its name up to the first dot of its last part: the sample that it belongs to.
        suffix: the rest, in lower case: ``jpg``, ``chosen.png``.
        header: where its header begins, bytes from the start of the file.
        start: where its content begins.
        size: of the content, bytes.
    """

    key: str
    suffix: str
    header: int
    start: int
    size: int


def members(path: Path, start: int = 0, stop: int | None = None) -> Iterator[Member]:
    """Yield the members of a tar file, from its headers alone.

    Args:
        path: of the file.
        start: where to begin: 0 or the header of a member.
        stop: where to end, a header too; None reads and checks the rest of the file.

    Raises:
        DataError: not a tar file, cut short, or a member that is refused; what was yielded before is sound.
    """
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(start)
        empty = 0
        while stop is None or file.tell() < stop:
            here = file.tell()
            name, size = None, None  # type: str | None, int | None
            while (head := _header(file, path)) is not None and head.kind in (b"x", b"g", b"L"):
                told = _extended(file, path, head)
                if head.kind != b"g":
                    name, size = told.get("path", name), int(told["size"]) if "size" in told else size
            if head is None:
                _check_end(file, path)
                return
            name, size = head.name if name is None else name, head.size if size is None else size
            content = file.tell()
            if head.kind == b"5" and size == 0:
                continue
            key, suffix = _checked(path, name, head.kind)
            if size > MAX_MEMBER:
                raise DataError(
                    f"{path}: member '{name}' declares {size:,} bytes, more than the {MAX_MEMBER:,} allowed"
                )
            if content + size > end:
                raise DataError(f"{path}: cut short within member '{name}'")
            empty += size == 0
            if empty > MAX_EMPTY:
                raise DataError(f"{path}: more than {MAX_EMPTY:,} members are empty")
            yield Member(key, suffix, here, content, size)
            file.seek(content + -(-size // BLOCK) * BLOCK)


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: bytes


def _header(file: BinaryIO, path: Path) -> _Header | None:
    """Read one header; None for the first block of the end."""
    place, block = file.tell(), file.read(BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path}: cut short: it does not end as a tar file ends")
    if not block.strip(b"\0"):
        return None
    told = _number(block[148:156])
    if told != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise DataError(f"{path}: no tar header at byte {place:,}: damaged, or not a tar file")
    parts = [block[0:100]] if block[257:265] == b"ustar  \0" else [block[345:500], block[0:100]]
    size = _number(block[124:136])
    if size is None or size < 0:
        raise DataError(f"{path}: the header at byte {place:,} declares no size")
    kind = b"0" if block[156:157] in (b"\0", b"7") else block[156:157]
    return _Header(_text("/".join(_text(p.split(b"\0")[0], path) for p in parts if p.strip(b"\0")), path), size, kind)


def _number(field: bytes) -> int | None:
    """Read an octal number, or one of base 256 as GNU tar writes those that are too large."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") | (field[0] & 0x7F) << 8 * (len(field) - 1)
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _text(value: bytes | str, path: Path) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a member's name is not UTF-8: {value!r}") from error


def _extended(file: BinaryIO, path: Path, head: _Header) -> dict[str, str]:
    """Read what an extended header tells of the next member."""
    if head.size > MAX_HEADER:
        raise DataError(f"{path}: an extended header of {head.size:,} bytes; at most {MAX_HEADER:,} are read")
    content = file.read(-(-head.size // BLOCK) * BLOCK)[: head.size]
    if len(content) < head.size:
        raise DataError(f"{path}: cut short within an extended header")
    if head.kind == b"L":
        return {"path": _text(content.rstrip(b"\0"), path)}
    told: dict[str, str] = {}
    place = 0
    while place < len(content):
        length = content[place : place + 6].partition(b" ")[0]
        if not length.isdigit() or not len(length) < int(length) <= len(content) - place:
            raise DataError(f"{path}: a damaged extended header")
        key, _, value = content[place + len(length) + 1 : place + int(length) - 1].partition(b"=")
        told[_text(key, path)] = _text(value, path)
        place += int(length)
    if any(key.startswith("GNU.sparse") for key in told):
        raise DataError(f"{path}: holds a sparse file; only plain files are read")
    if not re.fullmatch("[0-9]{1,18}", told.get("size", "0")):
        raise DataError(f"{path}: a damaged extended header")
    return told


def _checked(path: Path, name: str, kind: bytes) -> tuple[str, str]:
    """Return a member's key and suffix, if it may be read at all."""
    if kind != b"0":
        raise DataError(f"{path}: member '{name}' is {_REFUSED.get(kind, 'of an unknown kind')}; only files are read")
    if re.search(r"[\x00-\x1f\x7f\\]", name) or re.match(r"/|[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        raise DataError(f"{path}: member {name!r} has a name that leads outside or is no name")
    place = PurePosixPath(name)
    stem, _, suffix = place.name.partition(".")
    suffix = suffix.lower()
    if not stem or not suffix or suffix.rpartition(".")[2] not in ALLOWED:
        raise DataError(f"{path}: member '{name}' is of a kind that is not read; allowed: {', '.join(sorted(ALLOWED))}")
    return str(place.parent / stem), suffix


def _check_end(file: BinaryIO, path: Path) -> None:
    if len(block := file.read(BLOCK)) < BLOCK:
        raise DataError(f"{path}: cut short: it does not end as a tar file ends")
    while block:
        if block.strip(b"\0"):
            raise DataError(f"{path}: something follows the end of the archive; joined archives are not read")
        block = file.read(2**20)

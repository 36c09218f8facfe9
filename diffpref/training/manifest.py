"""The manifest of a checkpoint: what every file must be, so that damage is found before anything is loaded.

It is written last. A byte of it that changed is found too: it holds a digest of itself, and must be exactly the text
that its content gives. This, and the key ``format``, stay as they are in every later format.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from diffpref.core.errors import CheckpointError
from diffpref.core.files import write_atomic

__all__ = ["MANIFEST", "library_versions", "read_manifest", "verify_files", "write_counted", "write_manifest"]

MANIFEST = "manifest.json"
LIBRARIES = ("torch", "safetensors", "diffusers", "transformers", "accelerate", "peft")
CHUNK = 1 << 22


def write_counted(path: Path, pieces: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file; return its size and the xxh3-128 of what was meant to be in it."""
    digest, size = xxhash.xxh3_128(), 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal size
        for piece in pieces:
            digest.update(piece)
            size += memoryview(piece).nbytes
            yield piece

    write_atomic(path, counted())
    return {"bytes": size, "xxh3_128": digest.hexdigest()}


def library_versions() -> dict[str, str]:
    """Return the versions of what decides the numbers."""
    import diffpref

    found = {"diffpref": diffpref.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _sealed(values: Mapping[str, Any]) -> str:
    return _text({**values, "digest": xxhash.xxh3_128(_text(values).encode()).hexdigest()})


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the manifest, with a digest of itself."""
    write_atomic(folder / MANIFEST, _sealed(values))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check it against itself.

    Raises:
        CheckpointError: missing, or not exactly what was written.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
        values = json.loads(text)
        values.pop("digest")
        whole = _sealed(values) == text
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise CheckpointError(f"{MANIFEST}: {reason}") from error
    if not whole:
        raise CheckpointError(f"{MANIFEST}: its content differs from its own digest")
    return dict(values)


def verify_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file with the manifest: first all sizes, then all contents.

    Raises:
        CheckpointError: names the first file that is missing, has another size or another content.
    """
    files = manifest["files"]
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{name}: missing")
        if path.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{name}: {path.stat().st_size:,} bytes, expected {expected['bytes']:,}")
    for name, expected in files.items():
        digest = xxhash.xxh3_128()
        try:
            with open(folder / name, "rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"{name}: cannot be read ({error.strerror})") from error
        if digest.hexdigest() != expected["xxh3_128"]:
            raise CheckpointError(f"{name}: its content differs from its checksum")

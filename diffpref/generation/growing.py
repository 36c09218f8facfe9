"""A store that grows a part at a time, so that whatever stops the work costs no more than the part in the making.

The folder first gets ``plan.json``, then parts, each complete or absent, and its manifest last: a folder without a
manifest is no store yet. The plan decides which record stands in which part; a folder of another plan is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.files import read_json, sha256, write_json
from diffpref.data import Store, read_store
from diffpref.data.parts import PartReader, write_part
from diffpref.data.schema import SCHEMA_VERSION, to_table
from diffpref.data.store import FORMAT, LIBRARIES, MANIFEST

__all__ = ["PLAN", "GrowingStore"]

PLAN = "plan.json"
SHOWN = 5


class GrowingStore:
    """The folder of a store in the making.

    Args:
        folder: new or empty, or left by an earlier run of the same plan.
        plan: JSON-ready values that decide the content.
        num_parts: how many parts the plan has.

    Raises:
        DataError: the folder was made by another plan, and the message says where they differ; or by something else.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], num_parts: int) -> None:
        self.folder, self.plan, self.num_parts = Path(folder), plan, num_parts
        if (self.folder / PLAN).is_file():
            try:
                found = read_json(self.folder / PLAN)
            except ValueError as error:
                raise DataError(f"{self.folder / PLAN} is damaged ({error}); remove the folder") from error
            if differences := list(_differences(found, dict(plan))):
                more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
                raise DataError(
                    f"{self.folder} was made by another plan: {'; '.join(differences[:SHOWN])}{more};"
                    " choose another folder, or remove this one"
                )
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise DataError(f"{self.folder} exists already and holds no {PLAN}; choose another folder or remove it")
        else:
            write_json(self.folder / PLAN, dict(plan))
        for leftover in self.folder.glob(".tmp-*"):
            leftover.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / MANIFEST).is_file()

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not there yet."""
        return [number for number in range(self.num_parts) if not self._path(number).is_file()]

    def add(self, number: int, records: Sequence[Record]) -> None:
        """Write one part: after this it is there, whatever happens."""
        path = self._path(number)
        temporary = self.folder / f".tmp-{path.name}"
        write_part(temporary, to_table(records))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def finish(self) -> Store:
        """Write the manifest, unless it is there, and open the store."""
        if not self.is_complete:
            write_json(self.folder / MANIFEST, self._manifest())
        return read_store(self.folder, verify="counts")

    def _manifest(self) -> dict[str, Any]:
        import diffpref

        paths = [self._path(number) for number in range(self.num_parts)]
        counts = [len(PartReader(path)) for path in paths]
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "num_records": sum(counts),
            "parts": [
                {"file": path.name, "num_records": count, "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path, count in zip(paths, counts, strict=True)
            ],
            "generator": {name: value for name, value in self.plan.items() if name != "prompts"},
            "libraries": {name: diffpref.__version__ if name == "diffpref" else version(name) for name in LIBRARIES},
        }


def _differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Yield a phrase for each value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            name = f"{path}.{key}" if path else str(key)
            if key not in there or key not in here:
                yield f"{name}: only {'here' if key in here else 'there'}"
            else:
                yield from _differences(there[key], here[key], name)
    elif isinstance(there, list) and isinstance(here, list):
        if len(there) != len(here):
            yield f"{path}: {len(there)} entries there, {len(here)} here"
        else:
            for index, (one, other) in enumerate(zip(there, here, strict=True)):
                yield from _differences(one, other, f"{path}[{index}]")
    elif there != here:
        yield f"{path}: {there!r} there, {here!r} here"

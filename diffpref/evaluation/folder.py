"""The folder of an evaluation: what was drawn and scored stays, so that a killed evaluation goes on where it was.

``plan.json`` says what the pictures are of; ``pictures/NAME/00012.png`` are a contender's, lossless; clips are too, and
end in ``.webp``; ``columns/NAME/MEASURE.json`` hold what was said of them, in the same order, and grow chunk by chunk.
Every file is complete or absent.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.core.files import read_json, remove_folder, remove_leftovers, write_atomic, write_json
from diffpref.core.media import Clip, Media
from diffpref.data import decode_image, encode_png
from diffpref.data.clips import encode_clip, read_clip
from diffpref.evaluation.plan import EvaluationPlan

__all__ = ["ColumnFile", "EvaluationFolder", "read_kept"]

logger = logging.getLogger(__name__)

FORMAT = 1
PLAN = "plan.json"
SUFFIXES = {"image": ".png", "video": ".webp"}
SHOWN = 4


class EvaluationFolder:
    """Pictures and columns of one plan.

    Args:
        path: new or empty, or left by an earlier start.
        plan: what the pictures are of.

    Raises:
        DataError: the folder holds pictures of another plan; the line says where they differ.
    """

    def __init__(self, path: Path, plan: EvaluationPlan) -> None:
        self.path, self.plan = Path(path), plan
        decisive = {"format": FORMAT, **plan.decisive()}
        if not (self.path / PLAN).is_file():
            write_json(self.path / PLAN, decisive)
        try:
            found = read_json(self.path / PLAN)
        except ValueError as error:
            raise DataError(f"{self.path / PLAN} is damaged ({error}); remove the folder") from error
        if differences := list(_differences(found, decisive)):
            more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise DataError(
                f"{self.path} holds another evaluation: {'; '.join(differences[:SHOWN])}{more}; choose another"
                " --output, or remove it"
            )

    @property
    def digests(self) -> Path:
        """Where content digests are remembered."""
        return self.path / "digests.json"

    def claim(self, name: str, digest: str) -> bool:
        """Give a name to weights; return whether something of other weights under it was removed.

        Args:
            name: of the contender.
            digest: of its weights.
        """
        mark, removed = self.path / "columns" / name / "weights.json", False
        for folder in (mark.parent, mark.parent / "embeddings", self.pictures(name)):
            if folder.is_dir():
                remove_leftovers(folder)
        if mark.is_file() and read_json(mark) != {"digest": digest}:
            for folder in (self.pictures(name), mark.parent):  # the mark goes last
                if folder.is_dir():
                    remove_folder(folder)
            removed = True
        if not mark.is_file():
            write_json(mark, {"digest": digest})
        return removed

    # ------------------------------------------------------------ pictures

    def pictures(self, name: str) -> Path:
        """Return the folder of a contender's pictures."""
        return self.path / "pictures" / name

    def _picture(self, name: str, index: int) -> Path:
        return self.pictures(name) / f"{index:05d}{SUFFIXES[self.plan.kind]}"

    def put(self, name: str, index: int, picture: np.ndarray | Clip) -> None:
        """Keep a picture, (H, W, 3) uint8, or a clip."""
        content = encode_clip(picture) if isinstance(picture, Clip) else encode_png(picture)
        write_atomic(self._picture(name, index), content)

    def has(self, name: str, index: int) -> bool:
        """Whether a file of the picture is there, readable or not."""
        return self._picture(name, index).is_file()

    def get(self, name: str, index: int) -> Media | None:
        """Return a picture, (H, W, 3) uint8, or a clip; None where there is none that can be read, which is told."""
        file = self._picture(name, index)
        if not file.exists():
            return None
        try:
            return _read(file)
        except DataError as error:
            logger.warning("%s; it is drawn again", error)
            file.unlink(missing_ok=True)
            return None

    def drop(self, name: str, indices: Iterable[int]) -> None:
        """Remove pictures that need not be kept."""
        for index in indices:
            self._picture(name, index).unlink(missing_ok=True)
        if self.pictures(name).is_dir() and not any(self.pictures(name).iterdir()):
            self.pictures(name).rmdir()

    def column(self, name: str, measure: str, version: str) -> ColumnFile:
        """Return what was said of a contender's pictures by a measure; its words by another version are forgotten."""
        safe = re.sub(r"[^\w.-]+", "-", measure)
        return ColumnFile(self.path / "columns" / name / f"{safe}.json", measure, version)


def _read(file: Path) -> Media:
    return np.asarray(decode_image(file)) if file.suffix == SUFFIXES["image"] else read_clip(Candidate(path=str(file)))


def read_kept(folder: Path, name: str, index: int) -> Media:
    """Return a picture, (H, W, 3) uint8, or a clip that an evaluation has kept.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    stem = folder / "pictures" / name / f"{index:05d}"
    found = [file for suffix in SUFFIXES.values() if (file := stem.with_suffix(suffix)).exists()]
    return _read(found[0] if found else stem.with_suffix(SUFFIXES["image"]))


@dataclass
class ColumnFile:
    """What a measure has said of one contender's pictures so far, in their order.

    Args:
        path: of the file.
        measure: who says it.
        version: of the measure.
    """

    path: Path
    measure: str
    version: str

    def read(self) -> list[Any]:
        """Return the values there, the first ones of the whole; none if they are another version's, or damaged."""
        if not self.path.is_file():
            return []
        try:
            found = read_json(self.path)
        except ValueError:
            logger.warning("%s is damaged; it is made again", self.path)
            return []
        same = isinstance(found, dict) and (found.get("measure"), found.get("version")) == (self.measure, self.version)
        return list(found["values"]) if same else []

    def write(self, values: Sequence[Any]) -> None:
        """Replace the values."""
        write_json(self.path, {"measure": self.measure, "version": self.version, "values": list(values)})


def _differences(found: Any, wanted: Any, path: str = "") -> Iterable[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys([*found, *wanted]):
            yield from _differences(found.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    elif found != wanted:
        yield f"{path}: {found} there, {wanted} here"

"""Checkpoints: folders that are complete or absent, verified before use, the newest few good ones kept.

``checkpoints/step-000400/`` holds a safetensors file for each part (``policy``, ``optimizer`` and whatever else moves),
``counters.json`` for what is no tensor, and ``manifest.json``, written last. Randomness needs no entry: it is a
function of the step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffpref.core.errors import CheckpointError, NewerFormatError
from diffpref.core.files import publish_folder, read_json, remove_folder, remove_leftovers
from diffpref.training.disk import writing
from diffpref.training.manifest import (
    MANIFEST,
    library_versions,
    read_manifest,
    verify_files,
    write_counted,
    write_manifest,
)
from diffpref.training.state import DTYPES, load_tensors, safetensors_pieces

__all__ = [
    "FORMAT",
    "Checkpoint",
    "checkpoint_path",
    "list_checkpoints",
    "newest_checkpoint",
    "open_checkpoint",
    "remove_unfinished",
    "save_checkpoint",
]

logger = logging.getLogger(__name__)

FORMAT = 2
"""1 had no manifest, and the optimiser's scalars in ``optimizer.json``; it is still read."""
COUNTERS = "counters.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found good.

    Args:
        path: its folder.
        step: updates done.
        counters: what is no tensor, as JSON gives it back.
        shapes: part -> name -> dtype and shape; empty for format 1.
    """

    path: Path
    step: int
    counters: Mapping[str, Any]
    shapes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __contains__(self, part: str) -> bool:
        return (self.path / f"{part}.safetensors").is_file()

    def part(self, name: str) -> dict[str, Tensor]:
        """Read the tensors of a part.

        Raises:
            CheckpointError: there is no such part, or it holds other tensors than the manifest says.
        """
        if name not in self:
            raise CheckpointError(f"{self.path}: holds no part '{name}'; it was saved by a run without one")
        tensors = load_tensors(self.path / f"{name}.safetensors")
        if name in self.shapes and _shapes(tensors) != self.shapes[name]:
            raise CheckpointError(f"{self.path}: {name}.safetensors holds other tensors than its manifest says")
        return tensors


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return Path(folder) / "checkpoints" / f"step-{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the published checkpoints of a run, oldest first. Whether they are good, `open_checkpoint` says."""
    found = [path for path in (Path(folder) / "checkpoints").glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left behind while it wrote. No other process may be writing to this run."""
    for place in (Path(folder), Path(folder) / "checkpoints", Path(folder) / "samples"):
        remove_leftovers(place)


def save_checkpoint(
    folder: Path,
    step: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    counters: Mapping[str, Any],
    keep: int,
    spare: int | None = None,
) -> Path:
    """Publish the state after ``step`` updates; only then remove those older than the newest ``keep`` good ones.

    A good checkpoint of this step that is there already stays as it is; a bad one is replaced.

    Args:
        folder: of the run.
        step: updates done.
        parts: part -> tensors by name; each part becomes a file ``<part>.safetensors``.
        counters: JSON-ready values.
        keep: good checkpoints that stay.
        spare: step of a further one that stays, however old.

    Raises:
        DiskFullError: there is no room; the older checkpoints are as they were.
        CheckpointError: it cannot be written for another reason.
    """
    target = checkpoint_path(folder, step)
    if target.exists() and _complaint(target) is None:
        return target
    needed = sum(t.numel() * t.element_size() for tensors in parts.values() for t in tensors.values())
    with writing(target, needed, "older checkpoints are intact"), publish_folder(target, replace=True) as temporary:
        _write(temporary, step, parts, counters)
    with writing(target, 0, "it is saved, but older ones could not be removed"):
        _rotate(folder, keep, spare)
    return target


def _write(folder: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], counters: Mapping[str, Any]) -> None:
    files: dict[str, Any] = {}
    for part, tensors in parts.items():
        name = f"{part}.safetensors"
        files[name] = write_counted(folder / name, safetensors_pieces(tensors)) | {"tensors": _shapes(tensors)}
    text = json.dumps({"format": FORMAT, "step": step, **counters}, indent=1, ensure_ascii=False) + "\n"
    files[COUNTERS] = write_counted(folder / COUNTERS, [text.encode()])
    write_manifest(folder, {"format": FORMAT, "step": step, "libraries": library_versions(), "files": files})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: {"dtype": DTYPES[t.dtype], "shape": list(t.shape)} for name, t in sorted(tensors.items())}


def _rotate(folder: Path, keep: int, spare: int | None = None) -> None:
    """Remove what is older than the newest ``keep`` good checkpoints; bad ones among these are kept to be looked at."""
    good = 0
    for path in reversed(list_checkpoints(folder)):
        if good >= keep:
            if int(path.name[5:]) != spare:
                remove_folder(path)
        elif _complaint(path) is None:
            good += 1


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify a checkpoint, every byte of it, and return it.

    Raises:
        NewerFormatError: it was written by a later version.
        CheckpointError: it is damaged; the message names the file and what is wrong with it.
    """
    try:
        if not (path / MANIFEST).exists() and _counters(path)["format"] == 1:
            return _open_format_1(path)
        manifest = read_manifest(path)
        if manifest["format"] > FORMAT:
            raise NewerFormatError(f"format {manifest['format']}, this version reads up to {FORMAT}: update diffpref")
        if manifest["step"] != int(path.name[5:]):
            raise CheckpointError(f"{MANIFEST}: is of step {manifest['step']}")
        verify_files(path, manifest)
        shapes = {Path(n).stem: file["tensors"] for n, file in manifest["files"].items() if "tensors" in file}
        return Checkpoint(path, manifest["step"], _counters(path), shapes)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def _counters(path: Path, name: str = COUNTERS) -> dict[str, Any]:
    try:
        values = read_json(path / name)
        if not isinstance(values, dict) or (name == COUNTERS and not {"format", "step"} <= values.keys()):
            raise ValueError("not what was written")
    except (OSError, ValueError, RecursionError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({str(error).splitlines()[0]})"
        raise CheckpointError(f"{name}: {reason}") from error
    return values


def _open_format_1(path: Path) -> Checkpoint:
    """Without a manifest only missing, cut and unreadable files are found."""
    counters = {**_counters(path), "optimizer": _counters(path, "optimizer.json")}
    for part in ("policy", "optimizer"):
        load_tensors(path / f"{part}.safetensors")
    return Checkpoint(path, int(counters["step"]), counters)


def _complaint(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        open_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest good checkpoint of a run, with one warning when a newer one is damaged; None: there is none.

    Raises:
        NewerFormatError: the newest was written by a later version.
        CheckpointError: there are checkpoints, but no good one: a line each.
    """
    bad: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            found = open_checkpoint(path)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            bad.append(str(error))
            continue
        if bad:
            logger.warning("%s; going on from %s", "; ".join(bad), path.name)
        return found
    if bad:
        head = f"{folder}: no checkpoint is good; put one back, or remove the folder to begin again"
        raise CheckpointError("\n".join([head, *bad]))
    return None

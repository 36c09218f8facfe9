"""Checkpoints: folders that are complete or absent, the newest few kept, resumed from the newest.

``checkpoints/step-000400/`` holds ``policy.safetensors``, the optimiser's moments and ``counters.json``. Randomness
needs no entry: it is a function of the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpref.core.errors import CheckpointError
from diffpref.core.files import publish_folder, read_json, write_json
from diffpref.training.state import load_optimizer, load_tensors, save_optimizer, save_tensors

__all__ = ["list_checkpoints", "load_checkpoint", "remove_unfinished", "save_checkpoint"]

FORMAT = 1


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the published checkpoints of a run, oldest first."""
    found = [path for path in (Path(folder) / "checkpoints").glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left behind while it wrote. No other process may be writing to this run."""
    for path in (Path(folder) / "checkpoints").glob(".tmp-step-*"):
        shutil.rmtree(path)


def save_checkpoint(
    folder: Path,
    step: int,
    policy: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    keep: int,
    scaler: Mapping[str, Any] | None = None,
) -> Path:
    """Publish the state after ``step`` updates, then remove all but the newest ``keep``.

    Args:
        folder: of the run.
        step: updates done.
        policy: what is trained, by name.
        optimizer: its moments are saved.
        keep: checkpoints that stay.
        scaler: state of the loss scaler, under fp16.
    """
    target = Path(folder) / "checkpoints" / f"step-{step:06d}"
    if target.exists():
        return target
    with publish_folder(target) as temporary:
        save_tensors(temporary / "policy.safetensors", policy)
        save_optimizer(temporary, optimizer)
        write_json(temporary / "counters.json", {"format": FORMAT, "step": step, "scaler": dict(scaler or {})})
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Restore the optimiser; return the step, the policy's tensors and the loss scaler's state.

    Raises:
        CheckpointError: the checkpoint is of another format, damaged, or of another kind of run.
    """
    try:
        counters = read_json(path / "counters.json")
        if counters["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {counters['format']}, this version reads {FORMAT}")
        load_optimizer(path, optimizer)
        return int(counters["step"]), load_tensors(path / "policy.safetensors"), counters["scaler"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged checkpoint ({what}); remove it to go on from an earlier one") from error

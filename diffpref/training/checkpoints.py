"""Checkpoints: folders that are complete or absent, the newest few kept, resumed from the newest.

``checkpoints/step-000400/`` holds ``policy.safetensors``, the optimiser's moments and ``counters.json``. Randomness
needs no entry: it is a function of the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffpref.core.errors import CheckpointError
from diffpref.core.files import publish_folder, read_json, write_json
from diffpref.training.state import load_optimizer, load_tensors, save_optimizer, save_tensors

__all__ = ["list_checkpoints", "load_checkpoint", "save_checkpoint"]

FORMAT = 1


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the published checkpoints of a run, oldest first."""
    return sorted(p for p in (Path(folder) / "checkpoints").glob("step-*") if (p / "counters.json").is_file())


def save_checkpoint(
    folder: Path, step: int, policy: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, keep: int
) -> Path:
    """Publish the state after ``step`` updates, then remove all but the newest ``keep``."""
    target = Path(folder) / "checkpoints" / f"step-{step:06d}"
    if target.exists():
        return target
    with publish_folder(target) as temporary:
        save_tensors(temporary / "policy.safetensors", policy)
        save_optimizer(temporary, optimizer)
        write_json(temporary / "counters.json", {"format": FORMAT, "step": step})
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Tensor]]:
    """Restore the optimiser; return the step and the policy's tensors.

    Raises:
        CheckpointError: the checkpoint is of another format, damaged, or of another kind of run.
    """
    counters = read_json(path / "counters.json")
    if counters.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {counters.get('format')}, this version reads {FORMAT}")
    load_optimizer(path, optimizer)
    return int(counters["step"]), load_tensors(path / "policy.safetensors")

"""A run that goes on where another ended, on other data: moments, schedule and counters are handed over."""

from __future__ import annotations

from pathlib import Path

from diffpref.core.errors import CheckpointError
from diffpref.training.checkpoints import list_checkpoints, newest_checkpoint, save_checkpoint

__all__ = ["continue_run"]


def continue_run(before: Path, output: Path) -> None:
    """Give a run that has not begun the last checkpoint of another, so that it resumes from there.

    What the checkpoint says of its data is left out: the new run has others, and that is meant so. A run that has a
    checkpoint of its own is left alone.

    Args:
        before: folder of the run that has ended.
        output: folder of the one that goes on.

    Raises:
        CheckpointError: the first run has left no good checkpoint.
    """
    if list_checkpoints(output):
        return
    found = newest_checkpoint(before)
    if found is None:
        raise CheckpointError(f"{before}: has no checkpoint to go on from")
    counters = {name: value for name, value in found.counters.items() if name not in ("data", "format", "step")}
    save_checkpoint(output, found.step, {part: found.part(part) for part in found.shapes}, counters, keep=1)

"""What a run finds in its output folder, and whether it may go on there."""

from __future__ import annotations

import logging
from pathlib import Path

from accelerate import Accelerator

from diffpref.config import Recipe, load_recipe
from diffpref.core.errors import ConfigError
from diffpref.training.checkpoints import (
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    remove_unfinished,
)
from diffpref.training.lock import OutputLock
from diffpref.training.log import read_metrics
from diffpref.training.resume import recipe_of, refuse_changes, tell_other_shares
from diffpref.training.together import on_main

__all__ = ["RunFolder", "find_start"]

logger = logging.getLogger(__name__)


class RunFolder:
    """The output folder in the hands of the processes of one run; the main one holds its lock.

    Args:
        accelerator: of this process.
        recipe: of the run.

    Raises:
        ConfigError: another run has it, or it cannot be written.
    """

    def __init__(self, accelerator: Accelerator, recipe: Recipe) -> None:
        self.accelerator, self.recipe, self.path = accelerator, recipe, Path(recipe.output)
        self._lock: OutputLock | None = None
        self.take()

    def take(self) -> None:
        """Keep others out, again if it was released; see `OutputLock`."""
        on_main(self.accelerator, self._take)

    def _take(self) -> int:
        self._lock = OutputLock(self.path)
        return 0

    def find_start(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, the same on every process; see `find_start`."""
        found: list[Checkpoint | None] = []

        def look() -> int:
            found.append(find_start(self.recipe))
            return found[0].step if found[0] else -1

        step = on_main(self.accelerator, look)
        if found:
            return found[0]
        return open_checkpoint(checkpoint_path(self.path, step)) if step >= 0 else None

    def release(self) -> None:
        """Let other runs have it."""
        if self._lock is not None:
            self._lock.release()


def find_start(recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None begins at the beginning. Leftovers of a kill are removed.

    Raises:
        ConfigError: the folder holds a run that this recipe may not go on with.
        CheckpointError: there are checkpoints, but no good one.
    """
    output = Path(recipe.output)
    remove_unfinished(output)
    saved = output / "config.yaml"
    there = bool(list_checkpoints(output))
    if not there and not (saved.exists() and read_metrics(output / "metrics.jsonl")):
        return None
    if not recipe.training.resume:
        raise ConfigError(
            f"training.resume: is false, but {output} holds a run already; choose another output, or resume it"
        )
    before = load_recipe(saved) if saved.exists() else None
    if before is not None:
        refuse_changes(before, recipe)
    found = newest_checkpoint(output) if there else None
    if found is None:
        return None
    if "settings" in found.counters:  # its own memory, should config.yaml be lost or changed
        refuse_changes(recipe_of(found.counters["settings"], recipe), recipe)
    if before is not None:
        tell_other_shares(before, recipe)
    newest = int(list_checkpoints(output)[-1].name[5:])
    if newest > recipe.training.steps:
        raise ConfigError(
            f"training.steps: {output} holds {newest} updates already, more than {recipe.training.steps}; give at least"
            f" {newest}, or choose another folder"
        )
    return found

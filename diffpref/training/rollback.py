"""Going back to the last checkpoint that was saved before an alarm's cause began."""

from __future__ import annotations

import logging
from pathlib import Path

from accelerate import Accelerator

from diffpref.core.errors import CheckpointError
from diffpref.training.checkpoints import Checkpoint, checkpoint_path, list_checkpoints, open_checkpoint
from diffpref.training.together import on_main

__all__ = ["healthy_checkpoint"]

logger = logging.getLogger(__name__)


def healthy_checkpoint(folder: Path, accelerator: Accelerator) -> Checkpoint | None:
    """Return the newest good checkpoint saved while the winner error was within its limit; None: there is none.

    A damaged one is passed over with a warning. The same on every process.
    """

    def look() -> int:
        for path in reversed(list_checkpoints(folder)):
            try:
                found = open_checkpoint(path)
            except CheckpointError as error:
                logger.warning("%s; looking for an older one", error)
                continue
            if found.counters.get("alarms", {}).get("winner", {}).get("good") == found.step:
                return found.step
        return -1

    step = on_main(accelerator, look)
    return open_checkpoint(checkpoint_path(folder, step)) if step >= 0 else None

"""What one process decides or fails at, and all must know: else the others would wait for it for ever."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from diffpref.core.errors import DiffprefError

__all__ = ["any_process", "on_main"]


def on_main(accelerator: Accelerator, work: Callable[[], int]) -> int:
    """Let the main process do some work, and give the number that it returns to every process.

    Raises:
        DiffprefError: on the others, when the main process could not; it raises what stopped it.
    """
    if accelerator.num_processes == 1:
        return work()
    told = torch.zeros(2, dtype=torch.int64, device=accelerator.device)
    if accelerator.is_main_process:
        try:
            told[1] = work()
            told[0] = 1
        finally:
            told = broadcast(told)
    else:
        told = broadcast(told)
        if not int(told[0]):
            raise DiffprefError("stopped with the first process, which says why")
    return int(told[1])


def any_process(accelerator: Accelerator, number: int) -> int:
    """Return the largest of the processes' numbers, to all of them."""
    if accelerator.num_processes == 1:
        return number
    given = torch.tensor([number], dtype=torch.int64, device=accelerator.device)
    return int(accelerator.gather(given).max())

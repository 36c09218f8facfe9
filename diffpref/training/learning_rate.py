"""Learning-rate schedules as functions of the update's number: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from diffpref.config import Optim

__all__ = ["learning_rate"]


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Return the learning rate of update ``step`` (from 0) of ``steps``.

    Warm-up rises linearly over ``warmup_steps`` and reaches the full rate with its last update. After it ``linear`` and
    ``cosine`` fall to zero at ``steps``. Unlike the published scripts, the number of processes changes nothing.
    """
    if step < optim.warmup_steps:
        return optim.learning_rate * (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[optim.schedule]
    return optim.learning_rate * factor

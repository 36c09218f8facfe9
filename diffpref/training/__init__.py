"""The training loop, its data, its checkpoints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Trainer"]

if TYPE_CHECKING:
    from diffpref.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name == "Trainer":  # on use: checkpoints and locks alone need none of the model libraries
        return importlib.import_module("diffpref.training.trainer").Trainer
    raise AttributeError(f"module 'diffpref.training' has no attribute '{name}'")

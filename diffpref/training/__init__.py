"""The training loop, its data, its checkpoints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Trainer", "continue_run", "make_plan"]

if TYPE_CHECKING:
    from diffpref.training.continuing import continue_run
    from diffpref.training.plan import make_plan
    from diffpref.training.trainer import Trainer

_PLACES = {"Trainer": "trainer", "continue_run": "continuing", "make_plan": "plan"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:  # on use: checkpoints and locks alone need none of the model libraries
        return getattr(importlib.import_module(f"diffpref.training.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'diffpref.training' has no attribute '{name}'")

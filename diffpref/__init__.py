"""diffpref aligns generative models to preferences: one objective, any modality."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = ("objectives", "rewards", "pipelines", "methods", "models", "data", "shapes", "evaluation", "generation")
_OBJECTS = {
    "Recipe": "diffpref.config",
    "Trainer": "diffpref.training",
    "load_recipe": "diffpref.config",
}

__all__ = ["Recipe", "Trainer", "__version__", "load_recipe", *_SUBMODULES]

if TYPE_CHECKING:
    from diffpref.config import Recipe, load_recipe
    from diffpref.training import Trainer


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"diffpref.{name}")
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'diffpref' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Rounds: generate, score, train, judge; once over, or as many times as a loop's method asks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "AlignmentRecipe",
    "EvaluationSettings",
    "LoopRecipe",
    "align",
    "check_loop",
    "load_alignment",
    "load_loop",
    "run_loop",
]

if TYPE_CHECKING:
    from diffpref.loops.loop_recipe import LoopRecipe, load_loop
    from diffpref.loops.looping import check_loop, run_loop
    from diffpref.loops.recipe import AlignmentRecipe, EvaluationSettings, load_alignment
    from diffpref.loops.round import align

_PLACES = {
    "AlignmentRecipe": "recipe",
    "EvaluationSettings": "recipe",
    "LoopRecipe": "loop_recipe",
    "align": "round",
    "check_loop": "looping",
    "load_alignment": "recipe",
    "load_loop": "loop_recipe",
    "run_loop": "looping",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:  # on use: the methods of loops alone need none of the model libraries
        return getattr(importlib.import_module(f"diffpref.loops.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'diffpref.loops' has no attribute '{name}'")

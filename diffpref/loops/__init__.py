"""Rounds: generate, score, train, judge."""

from __future__ import annotations

from diffpref.loops.recipe import AlignmentRecipe, EvaluationSettings, load_alignment
from diffpref.loops.round import align

__all__ = ["AlignmentRecipe", "EvaluationSettings", "align", "load_alignment"]

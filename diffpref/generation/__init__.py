"""Prompts to candidates to scores to preference data, resumable at every point."""

from __future__ import annotations

from diffpref.data import load_prompts
from diffpref.generation.candidates import Sample, generate
from diffpref.generation.caption_recipe import CaptionRecipe
from diffpref.generation.captioning import CaptionSettings, caption_store
from diffpref.generation.guided import GroundTruth, GuidedPlan, generate_guided, ground_truths
from diffpref.generation.hallucinated import with_hallucinations
from diffpref.generation.judged_parts import (
    PartSettings,
    PartSummary,
    judge_parts,
    judge_parts_of_store,
    summarise_parts,
)
from diffpref.generation.plan import GenerationPlan
from diffpref.generation.recipe import DrawnBy, GenerationRecipe
from diffpref.generation.scoring import score_records, score_store
from diffpref.generation.sources import generate_sources
from diffpref.generation.summary import ScoreSummary, summarise_scores

__all__ = [
    "CaptionRecipe",
    "CaptionSettings",
    "DrawnBy",
    "GenerationPlan",
    "GenerationRecipe",
    "GroundTruth",
    "GuidedPlan",
    "PartSettings",
    "PartSummary",
    "Sample",
    "ScoreSummary",
    "caption_store",
    "generate",
    "generate_guided",
    "generate_sources",
    "ground_truths",
    "judge_parts",
    "judge_parts_of_store",
    "load_prompts",
    "score_records",
    "score_store",
    "summarise_parts",
    "summarise_scores",
    "with_hallucinations",
]

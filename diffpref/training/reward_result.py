"""What a run that trained a reward model says of it, for who loads it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from diffpref.config import Recipe
from diffpref.core.judging import MediaKind
from diffpref.models.base import ModelFamily
from diffpref.models.reward_files import RewardFiles
from diffpref.objectives.pair_probability import pair_model
from diffpref.training.plan import Plan

__all__ = ["write_reward_file"]

SAYS = ("score", "scores", "log_std", "embedding")


def write_reward_file(output: Path, recipe: Recipe, plan: Plan, family: ModelFamily) -> None:
    """Write ``reward.json``, if the objectives name what a reward model says.

    Args:
        output: of the run.
        recipe: of the run.
        plan: its objectives.
        family: of the model, as it was trained.
    """
    says = tuple(name for name in SAYS if name in plan.wanted["policy"])
    if not says:
        return
    scorer = recipe.scorer.model_dump(mode="json")
    media: MediaKind = "text"
    if family.likelihood == "score":
        media = "image" if recipe.scorer.frames is None else "video"
        scorer["head"] = recipe.scorer.head or ("mlp" if family.name == "head_scorer" or family.heads else "cosine")
    pair = pair_model(plan.composition)
    RewardFiles(
        family=family.name,
        base=recipe.model.path,
        revision=recipe.model.revision,
        folder=plan.adapter.folder,
        heads=family.heads is not None,
        says=says,
        scorer=scorer,
        pair=asdict(pair) if pair else None,
        media=media,
        aspects=tuple(recipe.data.aspects) if "scores" in says else (),
        size=len(recipe.data.aspects) if "scores" in says else recipe.adapter.head_size,
        objective=tuple(term.spec.name for term in plan.composition.terms),
    ).save(output)

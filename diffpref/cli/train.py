"""``diffpref train``: align a model to preferences, from a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffpref.cli._reporting import tell_progress
from diffpref.cli._run_summary import print_run_summary
from diffpref.config import parse_recipe_cli

if TYPE_CHECKING:
    from diffpref.config import Recipe
    from diffpref.core.contracts import Reward

__all__ = ["main", "validation_scorers"]


def main(argv: Sequence[str]) -> int:
    """Read the recipe and its overrides, train, and say where the result lies."""
    recipe = parse_recipe_cli(argv, prog="diffpref train")
    from diffpref.evaluation.validation import ValidationPictures
    from diffpref.loops.opening import quiet_libraries
    from diffpref.training import Trainer
    from diffpref.training.launch import launched_precision
    from diffpref.training.log import read_metrics

    tell_progress()
    quiet_libraries()
    recipe = launched_precision(recipe, os.environ.get("ACCELERATE_MIXED_PRECISION"))
    trainer = Trainer(recipe, callbacks=[ValidationPictures(recipe.validation, validation_scorers(recipe))])
    output = trainer.fit()
    if trainer.world.is_main:
        result = f"trained {trainer.step} updates; the result is in {output / trainer.plan.adapter.folder}"
        print_run_summary(read_metrics(output / "metrics.jsonl"), [result])
    return 0


def validation_scorers(recipe: Recipe) -> dict[str, Reward]:
    """Load what scores the validation pictures, before anything else, on the process that draws them.

    Raises:
        ConfigError: an unknown reward or option, or a reward of what the model does not make.
        ModelError: a path holds no such model.
    """
    from diffpref.loops.judging import check_scorers, load_rewards
    from diffpref.loops.opening import pick_device

    if not recipe.validation.every or os.environ.get("RANK", "0") != "0":
        return {}
    scorers = load_rewards(recipe.validation.rewards, pick_device(None))
    check_scorers(scorers, recipe.model.family)
    return scorers

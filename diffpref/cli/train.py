"""``diffpref train``: align a model to preferences, from a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence

from diffpref.cli._reporting import tell_progress
from diffpref.config import parse_recipe_cli

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Read the recipe and its overrides, train, and say where the result lies."""
    recipe = parse_recipe_cli(argv, prog="diffpref train")
    from diffpref.evaluation.validation import ValidationPictures
    from diffpref.loops.opening import quiet_libraries
    from diffpref.training import Trainer
    from diffpref.training.launch import launched_precision

    tell_progress()
    quiet_libraries()
    recipe = launched_precision(recipe, os.environ.get("ACCELERATE_MIXED_PRECISION"))
    trainer = Trainer(recipe, callbacks=[ValidationPictures(recipe.validation)])
    output = trainer.fit()
    if trainer.world.is_main:
        print(f"trained {trainer.step} updates; the result is in {output / trainer.plan.adapter.folder}")
    return 0

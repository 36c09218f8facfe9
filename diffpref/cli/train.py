"""``diffpref train``: align a model to preferences, from a recipe."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from diffpref.config import parse_recipe_cli

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Read the recipe and its overrides, train, and say where the result lies."""
    recipe = parse_recipe_cli(argv, prog="diffpref train")
    from diffpref.evaluation.validation import ValidationPictures
    from diffpref.loops.opening import quiet_libraries
    from diffpref.training import Trainer

    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffpref").setLevel(logging.INFO)
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.CRITICAL)  # it says what our errors say
    quiet_libraries()
    trainer = Trainer(recipe, callbacks=[ValidationPictures(recipe.validation)])
    output = trainer.fit()
    if trainer.world.is_main:
        print(f"trained {trainer.step} updates; the result is in {output / trainer.plan.adapter.folder}")
    return 0

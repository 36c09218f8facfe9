"""``diffpref reward train``: a reward model from preference data, by a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.cli._reporting import tell_progress
from diffpref.cli._run_summary import print_run_summary
from diffpref.config import parse_recipe_cli
from diffpref.core.errors import ConfigError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Read the recipe and its overrides, train, and say how the result is loaded.

    Raises:
        ConfigError: the objectives ask nothing that a reward model says.
    """
    recipe = parse_recipe_cli(argv, prog="diffpref reward train")
    from diffpref.loops.opening import quiet_libraries
    from diffpref.models.reward_files import FILE
    from diffpref.training import Trainer
    from diffpref.training.log import read_metrics
    from diffpref.training.reward_result import SAYS

    tell_progress()
    quiet_libraries()
    trainer = Trainer(recipe)
    if not trainer.plan.wanted["policy"] & {*SAYS}:
        raise ConfigError(
            "objective: asks for no score, so that no reward model is trained; take one of scores, such as"
            " bradley_terry, or train a generator with 'diffpref train'"
        )
    output = Path(trainer.fit())
    if trainer.world.is_main:
        told = f"trained {trainer.step} updates; {output / FILE} tells what"
        load = f'rewards.load("trained", "{output}"), or --rewards trained={output}'
        print_run_summary(read_metrics(output / "metrics.jsonl"), [told, f"it is loaded by {load}"])
    return 0

"""Whether a recipe may go on with a run that is there already: what decides the numbers must not have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffpref.config import Recipe
from diffpref.core.errors import ConfigError

__all__ = ["FREE_ON_RESUME", "refuse_changes", "with_records_per_update"]

SHARES = frozenset({"training.batch_size", "training.accumulation"})

FREE_ON_RESUME = frozenset(
    {
        "output",
        "bank.folder",
        "data.cache",
        *SHARES,
        "data.max_unusable",
        "guards.nonfinite",
        "guards.max_skips",
        "training.steps",
        "training.checkpoint_every",
        "training.keep",
        "training.log_every",
        "training.resume",
        "validation.prompts",
        "validation.every",
        "validation.seeds",
        "validation.num_inference_steps",
        "validation.guidance_scale",
        "validation.ema",
    }
)
"""What may differ when a run goes on. ``training.steps`` ends it later or earlier; schedules that fall to zero at the
end then fall to another end. How an update's records are shared out over processes and micro-batches is free as long as
``training.records_per_update``, their number, stays: the samples and their noise are then the same, and the numbers
agree to rounding."""


def with_records_per_update(recipe: Recipe, processes: int) -> Recipe:
    """Return the recipe with the number of records that an update takes over all processes and micro-batches.

    Raises:
        ConfigError: the recipe names another number.
    """
    training = recipe.training
    product = training.batch_size * training.accumulation * processes
    if training.records_per_update not in (None, product):
        raise ConfigError(
            f"training.records_per_update: is {training.records_per_update}, but batch_size {training.batch_size} x"
            f" accumulation {training.accumulation} x {processes} process{'es' if processes > 1 else ''} give"
            f" {product}; change one of them"
        )
    return recipe.model_copy(update={"training": training.model_copy(update={"records_per_update": product})})


def refuse_changes(saved: Recipe, given: Recipe) -> None:
    """Compare the recipe of a run with the one that is to go on.

    Raises:
        ConfigError: they differ in what decides the numbers; a line each, old and new.
    """
    old, new = dict(_flat(saved.model_dump(mode="json"))), dict(_flat(given.model_dump(mode="json")))
    free = FREE_ON_RESUME
    if old["training.records_per_update"] is None:  # saved before it was: then how they are shared out must stay
        free = free - SHARES | {"training.records_per_update"}
    changed = [
        f"{path}: {old.get(path)} -> {new.get(path)}"
        for path in dict.fromkeys([*old, *new])
        if old.get(path) != new.get(path) and path not in free
    ]
    if changed:
        raise ConfigError(
            "\n".join([f"output: {given.output} holds a run with other settings; choose another folder", *changed])
        )


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of a recipe's settings; a name with its options is one value."""
    for key, value in section.items():
        if not prefix and isinstance(value, dict) and key != "method":
            yield from _flat(value, f"{key}.")
        else:
            yield f"{prefix}{key}", value

"""Whether a recipe may go on with a run that is there already: what decides the numbers must not have changed.

Every setting is in one of two sets, and a test says which one is in neither.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from diffpref.config import Recipe, build_recipe
from diffpref.config.problems import dotted_names
from diffpref.core.errors import CheckpointError, ConfigError

__all__ = [
    "DECIDES_THE_NUMBERS",
    "FREE_ON_RESUME",
    "recipe_of",
    "refuse_changes",
    "refuse_other_data",
    "settings_of",
    "tell_other_shares",
    "with_records_per_update",
]

logger = logging.getLogger(__name__)

SHARES = frozenset({"training.batch_size", "training.accumulation"})

FREE_ON_RESUME = frozenset(
    {
        "output",
        "bank.folder",
        "data.source",  # what it holds is compared instead
        "data.columns",
        "data.on_bad_shard",
        "data.cache",
        *SHARES,
        "data.max_unusable",
        "guards.nonfinite",
        "guards.max_skips",
        "guards.winner_error",
        "guards.winner_epsilon",
        "guards.winner_window",
        "guards.winner_patience",
        "training.steps",
        "training.checkpoint_every",
        "training.keep",
        "training.on_full_disk",
        "training.log_every",
        "training.resume",
        "validation.prompts",
        "validation.every",
        "validation.seeds",
        "validation.num_inference_steps",
        "validation.guidance_scale",
        "validation.ema",
        "validation.rewards",
        "logging.trackers",
        "logging.project",
    }
)
"""What may differ when a run goes on. ``training.steps`` ends it later or earlier; schedules that fall to zero at the
end then fall to another end. How an update's records are shared out over processes and micro-batches is free as long as
``training.records_per_update``, their number, stays: the samples and their noise are then the same, and the numbers
agree to rounding."""

DECIDES_THE_NUMBERS = frozenset(
    {
        "format",
        "seed",
        "model.family",
        "model.path",
        "model.revision",
        "model.variant",
        "model.attention",
        "model.precision",
        "model.gradient_checkpointing",
        "model.compile",
        "model.compile_backend",
        "model.allow_pickle",
        "model.max_sequence_length",
        "adapter.kind",
        "adapter.rank",
        "adapter.alpha",
        "adapter.targets",
        "adapter.dora",
        "adapter.start",
        "adapter.heads",
        "adapter.head_learning_rate_scale",
        "adapter.head_size",
        "scorer.head",
        "scorer.hidden",
        "scorer.activation",
        "scorer.reads",
        "scorer.frames",
        "scorer.max_logit_scale",
        "roles",
        "bank.slots",
        "bank.roles",
        "data.pairing",
        "data.score",
        "data.combine",
        "data.score_weights",
        "data.score_scale",
        "data.calibration",
        "data.score_labels",
        "data.list_scores",
        "data.aspects",
        "data.positive_share",
        "data.mixed_labels",
        "data.equal_prompts",
        "data.min_gap",
        "data.rarity_bins",
        "data.resolution",
        "data.max_length",
        "data.truncation",
        "data.padding",
        "data.random_flip",
        "data.random_crop",
        "data.views",
        "data.num_frames",
        "data.frame_stride",
        "data.fps",
        "data.random_start",
        "data.size_conditioning",
        "data.drop_ties",
        "data.drop_identical",
        "data.judgements",
        "method",
        "objective",
        "likelihood.weighting",
        "likelihood.snr_gamma",
        "likelihood.timesteps",
        "likelihood.logit_mean",
        "likelihood.logit_std",
        "likelihood.mode_scale",
        "optim.kind",
        "optim.fused",
        "optim.learning_rate",
        "optim.weight_decay",
        "optim.betas",
        "optim.eps",
        "optim.schedule",
        "optim.warmup_steps",
        "optim.max_grad_norm",
        "training.records_per_update",
        "training.replay",
        "training.max_rows",
        "training.ema.decay",
        "training.ema.every",
        "training.ema.warmup",
    }
)
"""What must stay as it was when a run goes on; a setting in neither set must, too."""

PLACES = frozenset({"model.path", "adapter.start", "adapter.heads", "roles"})
"""Not kept in checkpoints, which are handed around: they may name a person or a machine."""


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


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a checkpoint remembers of its recipe: all that decides the numbers and names no place."""
    flat = _flat(recipe.model_dump(mode="json"))
    return {path: value for path, value in flat if path not in FREE_ON_RESUME | PLACES}


def recipe_of(settings: Mapping[str, Any], given: Recipe) -> Recipe:
    """Return the given recipe with the settings that a checkpoint remembers; what it knows nothing of as by default.

    Raises:
        CheckpointError: it remembers a setting that this version does not have.
    """
    flat = dict(_flat(given.model_dump(mode="json")))
    kept = {path: value for path, value in flat.items() if path in FREE_ON_RESUME | PLACES}
    try:
        return build_recipe(kept, settings)
    except ConfigError as error:
        told = str(error).replace("\n", "; ")
        raise CheckpointError(f"{given.output}: its checkpoint has settings of another version: {told}") from error


def tell_other_shares(saved: Recipe, given: Recipe) -> None:
    """Say so when an update's records are shared out otherwise than before: the bits then differ."""
    old, new = ((r.training.batch_size, r.training.accumulation) for r in (saved, given))
    if old != new:
        logger.warning(
            "training: batch_size x accumulation was %d x %d and is %d x %d; the records and their noise are the same,"
            " the numbers agree to rounding, not to the bit",
            *old,
            *new,
        )


def refuse_other_data(saved: Mapping[str, Any], given: Mapping[str, Any], output: str) -> None:
    """Compare what was trained on with what is there now; see `Batches.digest`.

    Raises:
        ConfigError: they differ.
    """
    if saved != given:
        raise ConfigError(
            f"data.source: holds {_told(given)}, but {output} was trained on {_told(saved)}; put these back, or choose"
            " another folder"
        )


def _told(digest: Mapping[str, Any]) -> str:
    counts = [f"{number} {view}" for view, number in digest.items() if view != "content"]
    return f"{', '.join(counts)} of content {digest['content'][:8]}"


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of a recipe's settings; a name with its options is one value."""
    values = set(dotted_names(Recipe))
    for key, value in section.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in values:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

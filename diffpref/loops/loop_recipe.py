"""The recipe of a loop, in one YAML file, and the recipe of the run of each round that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from diffpref.config import Data, Model, Named, Recipe, Section, build_recipe, config_error, load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.core.annotations import Positive, PositiveInt
from diffpref.core.errors import ConfigError
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.stage import Stage, Training
from diffpref.models import registry as families
from diffpref.sampling import SamplerSettings, TextSettings

__all__ = ["LoopRecipe", "draw_settings", "load_loop", "method_of", "round_folder", "round_recipe"]

METHODS = {"tokens": "language", "denoising": "denoising"}
"""Likelihood -> what prepares the rows of a round's run unless the recipe names another method."""


class LoopRecipe(Section):
    """Rounds of drawing, judging and training; the output folder holds ``rounds/000/{data,run}`` and ``loop.json``."""

    format: Literal[1] = Field(default=1, description="version of this file format")
    seed: int = Field(default=0, description="of every draw and every run")
    output: str = Field(min_length=1, description="folder of the loop")
    model: Model
    loop: Named = Field(description="the loop's method: a name or {name: {option: value}}")
    rounds: PositiveInt = Field(default=3, description="how many rounds")
    prompts: str | list[str] | None = Field(
        default=None,
        description="a text file, a .jsonl file with 'prompt', shapes:SPLIT[:COUNT | :START-STOP],"
        " shapes_moving:SPLIT[:COUNT | :START-STOP], words:SPLIT:COUNT, or a list; most loops take another part of them"
        " each round",
    )
    data: Data | None = Field(default=None, description="records with answers, for loops that learn from data")
    sampling: dict[str, Any] = Field(
        default_factory=dict,
        description="how answers are drawn: max_new_tokens, temperature, top_p, top_k of texts; num_inference_steps,"
        " guidance_scale, solver, resolution of pictures and clips; num_frames, fps of clips; batch_size of all",
    )
    judge: Named | None = Field(default=None, description="a reward or judge: a name or {name: {path: PATH, ...}}")
    pair_scale: Positive | None = Field(
        default=None,
        description="P(a better than b) = sigmoid(pair_scale * (score_a - score_b)); not given: the judge's own, or 1",
    )
    unit_size: PositiveInt = Field(
        default=32, description="prompts of one part of a round's data; what an interruption costs at most"
    )
    training: dict[str, Any] = Field(
        default_factory=dict,
        description="the recipe of each round's run, without what the loop decides: seed, output, model, data.source",
    )

    @model_validator(mode="before")
    @classmethod
    def _show_what_is_missing(cls, value: Any) -> Any:
        return {"model": {}, **value} if isinstance(value, dict) else value


def load_loop(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None) -> LoopRecipe:
    """Read a loop's recipe.

    Args:
        path_or_name: a YAML file or a bundled name, such as ``"text/iterative_dpo"``.
        overrides: top-level values that replace the file's.

    Raises:
        ConfigError: every problem of the recipe, a line each.
    """
    try:
        return LoopRecipe.model_validate({**load_yaml(find_recipe(path_or_name)), **(overrides or {})})
    except ValidationError as error:
        raise config_error(error, LoopRecipe) from None


def method_of(recipe: LoopRecipe) -> LoopMethod:
    """Return the loop's method, its options checked, and whether the recipe gives what it takes.

    Raises:
        ConfigError: an unknown name or option, rounds that the method cannot have, or a part that is missing.
    """
    try:
        kind = registry.get(recipe.loop.name)
    except ConfigError as error:
        raise ConfigError(f"loop: {error}") from None
    method = recipe.loop.validate_with(kind, f"loop.{recipe.loop.name}")
    method.num_parts(recipe.rounds)
    given = {name for name in ("prompts", "data") if getattr(recipe, name) is not None}
    wanted = {
        "prompts": [{"prompts"}],
        "data": [{"data"}],
        "either": [{"prompts"}, {"data"}],
        "both": [given | {"prompts", "data"}],
    }
    if given not in wanted[method.takes]:
        told = {"either": "either prompts or data", "both": "prompts and data"}.get(
            method.takes, f"{method.takes} alone"
        )
        raise ConfigError(f"loop: '{recipe.loop.name}' takes {told}; given: {', '.join(sorted(given)) or 'neither'}")
    asks = {method.asks(_stage(number, recipe.rounds)) for number in range(min(2, recipe.rounds))}
    if "judge" in asks and recipe.judge is None:
        raise ConfigError(f"judge: '{recipe.loop.name}' asks a judge; name a reward, such as words or pickscore")
    return method


def _stage(number: int, rounds: int) -> Stage:
    """Return a stage that stands for a later one, to ask what does not depend on weights."""
    from diffpref.loops.stage import Iterate

    return Stage(number, rounds, (Iterate(),) * (number + 1), (Iterate(),) * number, (Path(),) * number)


def draw_settings(recipe: LoopRecipe) -> TextSettings | SamplerSettings:
    """Return how answers are drawn.

    Raises:
        ConfigError: an option that the family's sampler does not have, or a value out of its range.
    """
    is_text = families.get(recipe.model.family).likelihood == "tokens"
    kind: type[Any] = TextSettings if is_text else SamplerSettings
    hints = get_type_hints(kind)
    keys: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default) for field in fields(kind)
    }
    model: type[BaseModel] = create_model(kind.__name__, __base__=Section, **keys)
    options = Named(name="sampling", options=recipe.sampling).validate_with(model, "sampling")
    try:
        return kind(**options.model_dump())
    except ConfigError as error:
        raise ConfigError(f"sampling.{error}") from None


def round_folder(recipe: LoopRecipe, number: int) -> Path:
    """Return the folder of a round."""
    return Path(recipe.output) / "rounds" / f"{number:03d}"


def round_recipe(recipe: LoopRecipe, training: Training, stage: Stage) -> Recipe:
    """Return the recipe of a round's run.

    Args:
        recipe: of the loop.
        training: what the method lays down.
        stage: of the round.

    Raises:
        ConfigError: the recipe says what the loop decides, or anything that no run could have.
    """
    folder, given = round_folder(recipe, stage.round), recipe.training
    decided = {"seed", "output", "model", "roles"} & given.keys()
    decided |= {f"data.{name}" for name in ("source", "pairing", "score") if name in (given.get("data") or {})}
    decided |= {path for path in training.values if _at(given, path) is not None}
    if decided:
        raise ConfigError(f"training.{sorted(decided)[0]}: is decided by the loop; leave it out")
    likelihood = families.get(recipe.model.family).likelihood
    kind = (given.get("adapter") or {}).get("kind", "lora")
    start = {} if training.continues else _start(recipe, stage, kind, likelihood)
    base = {
        "seed": recipe.seed,
        "output": str(folder / "run"),
        "model": recipe.model.model_dump(exclude_unset=True),
        "data": {"source": str(folder / "data"), "cache": str(Path(recipe.output) / "cache")},
        "method": training.methods.get(likelihood, METHODS[likelihood]),
        "objective": training.objective,
    }
    roles = {name: _for_kind(role, kind, recipe) for name, role in training.roles.items()}
    try:
        return build_recipe(base, given, {"roles": roles}, training.values, start)
    except ConfigError as error:
        raise ConfigError("\n".join(f"training.{line}" for line in str(error).splitlines())) from None


def _at(values: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values


def _start(recipe: LoopRecipe, stage: Stage, kind: str, likelihood: str) -> dict[str, Any]:
    """Return what makes a run begin as the policy."""
    policy = stage.policy
    if kind == "full" and likelihood != "tokens":
        raise ConfigError(
            "training.adapter.kind: the rounds of a loop over a denoiser train LoRAs; give lora, got full"
        )
    found: dict[str, Any] = {}
    if policy.lora is not None:
        found["adapter.start"] = policy.lora
        settings = _rank_of(Path(policy.lora))
        found |= {f"adapter.{name}": value for name, value in settings.items()}
    if policy.model is not None:
        found["model.path"] = policy.model
    return found


def _rank_of(folder: Path) -> dict[str, Any]:
    """Return the shape of the LoRA that a run begins from: an extrapolated one has another rank than the recipe."""
    from diffpref.loops.extrapolating import lora_shape

    rank, alpha = lora_shape(folder)
    return {"rank": rank, "alpha": alpha, "targets": None}


def _for_kind(role: Mapping[str, Any], kind: str, recipe: LoopRecipe) -> dict[str, Any]:
    """Say 'the initial model' as the adapter can: a LoRA is switched off, a whole network is loaded once more."""
    if role.get("source") == "initial" and kind != "lora":
        return {**role, "source": "path", "path": recipe.model.path}
    return dict(role)

"""The recipe of a whole round, in one YAML file: what is drawn, how it is trained on, how the result is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from diffpref.config import Model, Named, Recipe, Section, config_error, load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.core.annotations import PositiveInt
from diffpref.generation import GenerationRecipe

__all__ = ["AlignmentRecipe", "EvaluationSettings", "load_alignment"]


class EvaluationSettings(Section):
    """Base against aligned, from the same prompts and seeds, drawn as the training pictures were."""

    prompts: str | list[str] = Field(
        description="a file, shapes:SPLIT[:COUNT], shapes_moving:SPLIT[:COUNT], or a list; none may be trained on"
    )
    seeds: PositiveInt = Field(default=1, description="pictures of each prompt and side")
    judges: list[Named] = Field(
        default_factory=list, description="rewards that did not label the training pairs: {name: {path: PATH}}"
    )


class AlignmentRecipe(Section):
    """A round: its output folder holds the store ``data``, the run ``run``, and the report."""

    seed: int = Field(default=0, description="of every stage")
    output: str = Field(min_length=1, description="folder of the round")
    model: Model
    generation: GenerationRecipe
    training: Recipe
    evaluation: EvaluationSettings

    @model_validator(mode="after")
    def _draw_for_prompts(self) -> AlignmentRecipe:
        if self.generation.prompts is None:
            raise ValueError("generation.prompts: a round draws for prompts; a ground_truth is for 'diffpref generate'")
        return self


def load_alignment(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None) -> AlignmentRecipe:
    """Read a round's recipe; model, seed and folders are written once and handed to each stage.

    Args:
        path_or_name: a YAML file or a bundled name, such as ``"rounds/shapes"``.
        overrides: values that replace the file's, by dotted path: ``{"output": "runs/demo", "training.seed": 1}``.

    Raises:
        ConfigError: every problem of the recipe, a line each.
    """
    given = load_yaml(find_recipe(path_or_name))
    for path, value in (overrides or {}).items():
        _put(given, path, value)
    output, shared = str(given.get("output", "")), {"seed": given.get("seed", 0), "model": given.get("model", {})}
    generation, training = dict(given.get("generation") or {}), dict(given.get("training") or {})
    given["generation"] = {**shared, "output": f"{output}/data", **generation}
    data = {"source": f"{output}/data", "cache": f"{output}/cache", **dict(training.get("data") or {})}
    given["training"] = {**shared, "output": f"{output}/run", **training, "data": data}
    try:
        return AlignmentRecipe.model_validate(given)
    except ValidationError as error:
        raise config_error(error, AlignmentRecipe) from None


def _put(given: dict[str, Any], path: str, value: Any) -> None:
    """Set a value by its dotted path; what is no section on the way is reported by whoever checks the whole."""
    *names, last = path.split(".")
    for name in names:
        inner = given.get(name)
        given[name] = dict(inner) if isinstance(inner, Mapping) else {}
        given = given[name]
    given[last] = value

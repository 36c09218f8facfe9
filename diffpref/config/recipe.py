"""A recipe: everything that decides a training run, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from diffpref.config.documents import dump_yaml, load_yaml
from diffpref.config.named import Named
from diffpref.config.problems import config_error
from diffpref.config.roles import RoleSettings
from diffpref.config.section import Section
from diffpref.config.sections import (
    Adapter,
    Bank,
    Data,
    Guards,
    Likelihood,
    Logging,
    Model,
    Optim,
    Scorer,
    Training,
    Validation,
)
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.files import write_atomic

__all__ = ["Recipe", "build_recipe", "load_recipe", "recipe_names", "save_recipe"]


class Recipe(Section):
    """A complete training run. Merged from defaults, a recipe file, then overrides; saved with the run."""

    format: Literal[1] = Field(default=1, description="version of this file format")
    seed: int = Field(default=0, description="every random draw is a function of it")
    output: str = Field(min_length=1, description="folder of the run")
    model: Model
    adapter: Adapter = Adapter()
    scorer: Scorer = Scorer()
    data: Data
    method: Named = Field(description="what is put before the models: a name or {name: {option: value}}")
    objective: list[Named] | None = Field(
        default=None,
        min_length=1,
        description="loss terms, added; a name or [{name: {option: value}}]; not given: the method's",
    )
    roles: dict[str, RoleSettings] = Field(
        default_factory=dict,
        description="changes of the method's roles, {reference: {source: copy, update: {ema: {decay: 0.99}}}}",
    )
    likelihood: Likelihood = Likelihood()
    bank: Bank = Bank()
    optim: Optim = Optim()
    training: Training = Training()
    guards: Guards = Guards()
    validation: Validation = Validation()
    logging: Logging = Logging()

    @field_validator("objective", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list) else [value]

    @model_validator(mode="before")
    @classmethod
    def _show_what_is_missing(cls, value: Any) -> Any:
        # A required section that is absent would hide which of its values are required.
        if isinstance(value, dict):
            return {"model": {}, "data": {}, **value}
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
        if self.validation.every and not self.validation.prompts:
            raise ValueError("validation.prompts: must be given when validation.every is > 0, got an empty list")
        if self.validation.ema and self.training.ema.decay is None:
            raise ValueError("validation.ema: is true, but training.ema.decay is not given, so there is no average")
        if self.guards.winner_error == "roll_back" and not self.training.checkpoint_every:
            raise ValueError("guards.winner_error: roll_back needs training.checkpoint_every > 0, got 0")
        return self


def build_recipe(*layers: Mapping[str, Any]) -> Recipe:
    """Merge layers, later over earlier, over the defaults.

    Sections merge key by key; a list, and a name with its options, is replaced as a whole.

    Args:
        layers: nested mappings; keys may also be dotted, ``{"optim.learning_rate": 1e-5}``.

    Raises:
        ConfigError: every problem of the result, a line each.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, _nest(layer), Recipe)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise config_error(error, Recipe) from None


def load_recipe(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path_or_name: a YAML file, or the name of a bundled recipe such as ``"sdxl/diffusion_dpo"``.
        overrides: values that replace the file's; see `build_recipe`.

    Raises:
        ConfigError: no such file or name, not YAML, or every problem of the merged recipe, a line each.
    """
    return build_recipe(load_yaml(find_recipe(path_or_name)), overrides or {})


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe with every default spelt out; `load_recipe` gives an equal one back."""
    write_atomic(Path(path), dump_yaml(recipe.model_dump(mode="json")))


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    folder = _bundled()
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def find_recipe(path_or_name: str | Path) -> Path:
    """Return the file of a recipe: an existing file first, else a bundled one (``recipes/`` and ``.yaml`` optional).

    Raises:
        ConfigError: neither a file nor a bundled recipe.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a recipe file")
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    known = recipe_names()
    if name not in known:
        listed = f" bundled recipes: {', '.join(known)}" if known else " there are no bundled recipes"
        raise ConfigError(f"{path_or_name}: no such recipe file{suggest(name, known) or ';'}{listed}")
    return _bundled() / f"{name}.yaml"


def _bundled() -> Path:
    return Path(str(files("diffpref"))) / "recipes"


def _nest(layer: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in layer.items():
        head, dot, rest = str(key).partition(".")
        if dot:
            nested[head] = _merge(nested.get(head) or {}, _nest({rest: value}), None)
        else:
            nested[head] = value
    return nested


def _merge(below: Any, above: Any, model: type[BaseModel] | None) -> Any:
    """Merge two mappings; ``model`` says which keys are sections (None: all of them)."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    merged = dict(below)
    for key, value in above.items():
        section = _section_class(model, key) if model else None
        merge_keys = key in merged and (model is None or section is not None)
        merged[key] = _merge(merged[key], value, section) if merge_keys else value
    return merged


def _section_class(model: type[BaseModel], key: str) -> type[Section] | None:
    annotation: Any = model.model_fields[key].annotation if key in model.model_fields else None
    is_section = isinstance(annotation, type) and issubclass(annotation, Section) and not annotation.one_value
    return annotation if is_section else None

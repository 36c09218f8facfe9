"""A recipe from a command line: ``recipe.yaml --data.source X --optim.learning_rate 1e-5 --output runs/x``.

tyro renders the help from the typed sections. The line itself is split here, because values must be judged together
with those of the file, so that all problems are shown at once and a line each; tyro stops at the first, in a box.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from diffpref.config.documents import load_yaml, parse_yaml
from diffpref.config.problems import dotted_names
from diffpref.config.recipe import Recipe, build_recipe, find_recipe
from diffpref.config.section import Section, alternatives
from diffpref.core.errors import ConfigError, suggest

__all__ = ["ALIASES", "parse_recipe_cli"]

ALIASES = {
    "adam_epsilon": "optim.eps",
    "adam_weight_decay": "optim.weight_decay",
    "beta_dpo": "objective",
    "checkpointing_steps": "training.checkpoint_every",
    "checkpoints_total_limit": "training.keep",
    "dataset_name": "data.source",
    "enable_xformers_memory_efficient_attention": "model.attention",
    "gradient_accumulation_steps": "training.accumulation",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "learning_rate": "optim.learning_rate",
    "lr_scheduler": "optim.schedule",
    "lr_warmup_steps": "optim.warmup_steps",
    "max_grad_norm": "optim.max_grad_norm",
    "max_train_steps": "training.steps",
    "mixed_precision": "model.precision",
    "no_hflip": "data.random_flip",
    "output_dir": "output",
    "pretrained_model_name_or_path": "model.path",
    "random_crop": "data.random_crop",
    "random_flip": "data.random_flip",
    "rank": "adapter.rank",
    "resolution": "data.resolution",
    "revision": "model.revision",
    "train_batch_size": "training.batch_size",
    "validation_prompt": "validation.prompts",
    "validation_steps": "validation.every",
    "variant": "model.variant",
}
"""Flags of the diffusers training scripts, and where their values go here."""

_BARE = {
    "enable_xformers_memory_efficient_attention": "xformers",
    "gradient_checkpointing": "true",
    "no_hflip": "false",
    "random_crop": "true",
    "random_flip": "true",
}
_REWRITE: dict[str, Callable[[str], str]] = {
    "beta_dpo": lambda value: f"[{{dpo: {{beta: {value}}}}}]",
    "mixed_precision": lambda value: "fp32" if value == "no" else value,
}


def parse_recipe_cli(argv: Sequence[str], *, prog: str = "diffpref train") -> Recipe:
    """Read a command line into a recipe.

    Args:
        argv: an optional recipe (file or bundled name), then ``--dotted.path value`` flags, or flags of `ALIASES`.
            A list takes several words, or one YAML list. ``null`` unsets an optional value.
        prog: how the help calls the command.

    Raises:
        ConfigError: unknown or repeated flags, missing values, or every problem of the merged recipe, a line each.
        SystemExit: code 0, after ``--help``.
    """
    if {"-h", "--help"} & set(argv):
        _show_help(prog)
    recipe, flags = _split(argv)
    fields = {path: _field(path) for path in flags}
    overrides = {path: _value(words, fields[path], path) for path, words in flags.items()}
    return build_recipe(load_yaml(find_recipe(recipe)) if recipe else {}, overrides)


def _split(argv: Sequence[str]) -> tuple[str | None, dict[str, list[str]]]:
    """Return the recipe and the words of each dotted path."""
    known = set(dotted_names(Recipe))
    flags: dict[str, list[str]] = {}
    written_as: dict[str, str] = {}
    recipes: list[str] = []
    problems: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not _is_flag(word):
            recipes.append(word)
            continue
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        path = name if name in known else ALIASES.get(name)
        values = [value] if equals else [_BARE[name]] if name in _BARE else []
        if not values:
            most = len(words) if path and _is_list(_field(path)) else 1
            while words and not _is_flag(words[0]) and len(values) < most:
                values.append(words.pop(0))
        if path is None:
            hint = suggest(f"--{name}", [f"--{k}" for k in (*known, *ALIASES)]) or _same_ending(name, known)
            problems.append(f"{flag}: unknown flag{hint} --help lists all")
        elif not values:
            problems.append(f"{flag}: needs a value")
        elif path in flags:
            problems.append(f"{flag}: given twice, first as {written_as[path]}")
        else:
            flags[path], written_as[path] = [_REWRITE[name](v) for v in values] if name in _REWRITE else values, flag
    if len(recipes) > 1:
        problems.append(f"one recipe is expected, got {len(recipes)}: {', '.join(recipes)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return (recipes[0] if recipes else None), flags


def _is_flag(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None  # -1e-5 is a value


def _same_ending(name: str, known: Iterable[str]) -> str:
    last = name.rsplit(".", 1)[-1]
    same = sorted(path for path in known if path.rsplit(".", 1)[-1] == last)
    return f"; did you mean '--{same[0]}'?" if same else ";"


def _field(path: str) -> FieldInfo:
    model: type[BaseModel] = Recipe
    *sections, name = path.split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return model.model_fields[name]


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(member) in (list, tuple) for member in alternatives(field.annotation))


def _value(words: list[str], field: FieldInfo, path: str) -> Any:
    """Read the words of a flag: text stays text, everything else is YAML."""
    members = alternatives(field.annotation)
    if len(words) == 1 and words[0] in ("null", "~") and NoneType in members:
        return None
    if str in members and len(words) == 1 and not (_is_list(field) and words[0].startswith("[")):
        return words[0]
    texts = next((str in alternatives(get_args(m)[0]) for m in members if get_origin(m) is list), False)
    if texts and not (len(words) == 1 and words[0].startswith("[")):
        return words
    values = [parse_yaml(word, where=f"--{path}") for word in words]
    return values if _is_list(field) and not (len(values) == 1 and isinstance(values[0], list)) else values[0]


# ---------------------------------------------------------------- help


def _show_help(prog: str) -> None:
    import tyro

    recipe = Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(help="recipe: a file or a bundled name", metavar="RECIPE")
    ]
    flags = _flag_class("Flags", Recipe, {"recipe": recipe})
    flags.__doc__ = "Train from a recipe; flags replace its values. Flags of the diffusers scripts are understood too."
    tyro.cli(flags, args=["--help"], prog=prog, use_underscores=True)


def _flag_class(name: str, model: type[BaseModel], more: Mapping[str, Any] | None = None) -> Any:
    """Return a TypedDict of text with one key a field: what tyro needs to render the help."""
    import tyro

    keys = dict(more or {})
    for key, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section) and not annotation.one_value:
            keys[key] = _flag_class(annotation.__name__, annotation)
        else:
            text = f"{field.description} {_default(field)}"
            keys[key] = Annotated[str, tyro.conf.arg(help=text, metavar=_metavar(annotation), help_behavior_hint="")]
    flags: Any = TypedDict(name, keys, total=False)  # type: ignore[misc]
    flags.__doc__ = (model.__doc__ or "").strip()
    return flags


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f"(default: {default})"


def _metavar(annotation: Any) -> str:
    member = next(member for member in alternatives(annotation) if member is not NoneType)
    if get_origin(member) is Literal:
        words = (str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in get_args(member))
        return "{" + ",".join(words) + "}"
    if get_origin(member) in (list, tuple):
        return f"{_metavar(get_args(member)[0])} ..."
    return {int: "INT", float: "FLOAT", bool: "{true,false}", str: "TEXT"}.get(member, "NAME")

"""Who takes part in an evaluation: the base, finished runs and their averages, LoRAs and whole models of anybody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from diffpref.config import Recipe, load_recipe
from diffpref.core.assets import PREFIX, resolve
from diffpref.core.errors import CheckpointError, ConfigError

__all__ = [
    "BASE",
    "BASE_CONTENDER",
    "DENOISERS",
    "Contender",
    "ContenderKind",
    "open_run",
    "parse_contenders",
    "result_folder",
]

BASE = "base"
"""The name of the model that all contenders started from."""

ContenderKind: TypeAlias = Literal["base", "run", "lora", "network", "pipeline", "hub"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_EMA = ":ema"
DENOISERS = ("unet", "transformer")
"""Folders of the denoiser in a whole model."""


@dataclass(frozen=True)
class Contender:
    """One model of an evaluation.

    Args:
        name: heads its column; different for each.
        kind: ``base``; ``run``: a folder that diffpref has trained in; ``lora``: a file or folder; ``network``: the
            folder of a denoiser alone; ``pipeline``: a whole model's folder; ``hub``: a denoiser or whole model there.
        path: where it lies; empty for the base.
        ema: of a run, the average of ``training.ema`` instead of the last weights.
    """

    name: str
    kind: ContenderKind
    path: str = ""
    ema: bool = False

    def recipe(self) -> Recipe | None:
        """Return the recipe of a run; None for the others."""
        return load_recipe(Path(self.path) / "config.yaml") if self.kind == "run" else None

    def __str__(self) -> str:
        return {"base": "the base", "run": f"the run {self.path}"}.get(self.kind, self.path) + (
            ", averaged" if self.ema else ""
        )


BASE_CONTENDER = Contender(BASE, "base")
"""Always the first."""


def open_run(folder: Path | str) -> Recipe:
    """Return the recipe of a run that has a result.

    Raises:
        CheckpointError: the folder is no run, or its training has not ended.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        hint = "has no config.yaml" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} is not a run: {hint}")
    result_folder(folder)
    return load_recipe(folder / "config.yaml")


def result_folder(run: Path, *, ema: bool = False) -> Path:
    """Return where the result of a run lies: ``lora`` or ``model``, with ``ema`` the average's.

    Raises:
        CheckpointError: it is not there.
    """
    for name in ("lora_ema", "model_ema") if ema else ("lora", "model"):
        if (run / name).is_dir():
            return run / name
    if ema:
        raise CheckpointError(f"{run} has no averaged result: neither lora_ema/ nor model_ema/ is there")
    raise CheckpointError(f"{run} has no result yet: neither lora/ nor model/ is there; finish its training first")


def parse_contenders(words: Sequence[str]) -> list[Contender]:
    """Read the contenders of a command line, the base not among them.

    Args:
        words: each ``PATH`` or ``NAME=PATH``; a run's path may end in ``:ema``. Without a name the folder's or the
            file's is taken.

    Raises:
        ConfigError: a name twice, or one that is no name.
        CheckpointError: nothing that could be judged lies at a path, or a run has no (averaged) result.
    """
    found = [_parse(word) for word in words]
    names = [BASE, *(one.name for one in found)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        taken = "is the base's own" if twice == BASE else "is there twice"
        raise ConfigError(f"the name '{twice}' {taken}; give another one: NAME=PATH")
    return found


def _parse(word: str) -> Contender:
    name, equals, path = word.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, path = "", word
    ema = path.endswith(_EMA)
    path = path.removesuffix(_EMA)
    kind = _kind(path)
    if kind == "run":
        open_run(path)
        result_folder(Path(path), ema=ema)
    elif ema:
        raise ConfigError(f"'{word}': only a run has an average, and {path} is none")
    if not name:
        stem = Path(path).stem if kind == "lora" else Path(path).resolve().name if Path(path).exists() else path
        name = re.sub(r"[^\w.-]+", "-", stem.rpartition("/")[2].removeprefix(PREFIX)).strip("-.") or "model"
        name += "-ema" if ema else ""
    return Contender(name, kind, path, ema)


def _kind(path: str) -> ContenderKind:
    if path.startswith(PREFIX):
        path = resolve(path)
    where = Path(path)
    if (where / "config.yaml").is_file():
        return "run"
    if where.is_file() and where.suffix == ".safetensors":
        return "lora"
    if not where.exists():
        if _HUB_ID.fullmatch(path):
            return "hub"
        raise CheckpointError(f"{path} is not a run: no such folder; nor is it a LoRA, a model, or a hub id")
    if (where / "model_index.json").is_file():
        return "pipeline"
    if any((where / part / "config.json").is_file() for part in ("", *DENOISERS)):
        return "network"
    if where.is_dir() and any(where.glob("*.safetensors")):
        return "lora"
    hint = "has no config.yaml" if where.is_dir() else "is a file that is no .safetensors"
    raise CheckpointError(f"{path} is not a run: {hint}; nor is it a LoRA or a model in diffusers' form")

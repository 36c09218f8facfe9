"""Small loops over the words world, as the tests run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from diffpref.data import Store, read_store
from diffpref.loops import LoopRecipe
from diffpref.words import instructions

__all__ = ["lora", "losses", "preferences", "recipe", "store"]


def recipe(output: Path, name: str, **changes: Any) -> LoopRecipe:
    """Return the recipe of a loop of two rounds of two updates of four pairs; ``loop=`` are the method's options."""
    options = changes.pop("loop", {})
    training: dict[str, Any] = {"adapter": {"rank": 4}, "optim": {"learning_rate": 3e-3}}
    training |= {"training": {"batch_size": 4, "steps": 2}}
    values: dict[str, Any] = {
        "model": {"family": "causal_lm", "path": "bundled:words-decoder"},
        "rounds": 2,
        "prompts": "words:unseen:40",
        "judge": "words",
        "sampling": {"max_new_tokens": 12, "batch_size": 32},
        "unit_size": 8,
        "training": training,
    }
    values |= {name: value for name, value in changes.items() if value is not None}
    for absent in (name for name, value in changes.items() if value is None):
        del values[absent]
    return LoopRecipe.model_validate({**values, "output": str(output), "loop": {name: options}})


def preferences(path: Path, count: int = 40) -> Path:
    """Write pairs of the words world in TRL's format: the right answer against one that is cut short."""
    rows = [
        {"prompt": str(one), "chosen": one.answer, "rejected": " ".join(one.answer.split()[:1]) + " ."}
        for one in instructions("unseen", count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def folder(output: Path | str, number: int) -> Path:
    return Path(output) / "rounds" / f"{number:03d}"


def store(output: Path | str, number: int) -> Store:
    """Open a round's data, every byte verified."""
    return read_store(folder(output, number) / "data")


def lora(output: Path | str, number: int, where: str = "run/lora") -> dict[str, torch.Tensor]:
    """Return the LoRA that a round has left."""
    return load_file(folder(output, number) / where / "adapter_model.safetensors")


def losses(output: Path | str, number: int) -> list[float]:
    """Return the losses of a round's updates."""
    lines = (folder(output, number) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]

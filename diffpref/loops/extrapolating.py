"""Extrapolation from folder to folder: what the run of a round left, and what lies beyond it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from diffpref.core.errors import ConfigError, ModelError
from diffpref.core.files import publish_folder, write_atomic
from diffpref.loops.stage import Iterate
from diffpref.models.extrapolation import cut_lora, extrapolate, extrapolate_lora
from diffpref.models.tensor_files import with_sorted_metadata

__all__ = ["extrapolate_folder", "lora_shape"]

PEFT = ("adapter_model.safetensors", "adapter_config.json")
DIFFUSERS, METADATA = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"


@dataclass(frozen=True)
class _Lora:
    """A LoRA's file: its factors, its settings, and how another one of its kind is written."""

    tensors: dict[str, Tensor]
    rank: int
    alpha: float
    write: Callable[[Path, dict[str, Tensor], int], None]


def _read(folder: Path) -> _Lora:
    if (folder / PEFT[0]).is_file():
        settings = json.loads((folder / PEFT[1]).read_text(encoding="utf-8"))

        def write(target: Path, tensors: dict[str, Tensor], rank: int) -> None:
            told = {**settings, "r": rank, "lora_alpha": rank}
            write_atomic(target / PEFT[1], json.dumps(told, indent=2, sort_keys=True) + "\n")
            write_atomic(target / PEFT[0], save(tensors, {"format": "pt"}))

        return _Lora(load_file(folder / PEFT[0]), int(settings["r"]), float(settings["lora_alpha"]), write)
    path = folder / DIFFUSERS
    if not path.is_file():
        raise ModelError(f"{folder}: holds no LoRA that a run has left ({PEFT[0]} or {DIFFUSERS})")
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    told: dict[str, Any] = json.loads(metadata[METADATA])
    prefix = next(name.removesuffix("r") for name in told if name.endswith(".r"))

    def write_one(target: Path, tensors: dict[str, Tensor], rank: int) -> None:
        changed = json.dumps({**told, f"{prefix}r": rank, f"{prefix}lora_alpha": rank}, indent=2, sort_keys=True)
        write_atomic(target / DIFFUSERS, with_sorted_metadata(save(tensors, {**metadata, METADATA: changed})))

    return _Lora(load_file(path), int(told[f"{prefix}r"]), float(told[f"{prefix}lora_alpha"]), write_one)


def lora_shape(folder: Path) -> tuple[int, float]:
    """Return rank and alpha of a LoRA that a run has left.

    Raises:
        ModelError: none lies there.
    """
    found = _read(folder)
    return found.rank, found.alpha


def extrapolate_folder(
    newer: Iterate, older: Iterate, amount: float, folder: Path, max_rank: int | None = None
) -> Iterate:
    """Write the weights newer + amount * (newer - older), and return them as an iterate.

    Args:
        newer: what the last run left.
        older: what the one before left, or the initial model.
        amount: of the extrapolation.
        folder: where the weights go, a folder inside it.
        max_rank: of an extrapolated LoRA; None: the ranks of both together.

    Raises:
        ConfigError: a whole network and no whole network before it.
        ModelError: no weights lie there.
    """
    if newer.lora is not None:
        return Iterate(lora=str(_extrapolate_lora(newer, older, amount, folder / "lora", max_rank)))
    if newer.model is None or older.model is None:
        raise ConfigError("extrapolation of whole networks needs those of two rounds; leave first_momentum off")
    target = folder / "model"
    with publish_folder(target, replace=True) as place:
        for path in sorted(Path(newer.model).iterdir()):
            if path.suffix != ".safetensors":
                write_atomic(place / path.name, path.read_bytes())
                continue
            tensors = extrapolate(load_file(path), load_file(Path(older.model) / path.name), amount)
            write_atomic(place / path.name, save(tensors, {"format": "pt"}))
    return Iterate(model=str(target))


def _extrapolate_lora(newer: Iterate, older: Iterate, amount: float, target: Path, max_rank: int | None) -> Path:
    new = _read(Path(str(newer.lora)))
    if older.lora is None:  # the initial model: a LoRA of nothing
        scale = (1 + amount) * new.alpha / new.rank
        tensors = {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in new.tensors.items()}
    else:
        old = _read(Path(older.lora))
        scales = (new.alpha / new.rank, old.alpha / old.rank)
        tensors = extrapolate_lora(new.tensors, old.tensors, amount, scales=scales)
    rank = next(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
    if max_rank is not None and rank > max_rank:
        tensors, rank = cut_lora(tensors, max_rank), max_rank
    with publish_folder(target, replace=True) as place:
        new.write(place, {name: tensor.contiguous().to(torch.float32) for name, tensor in tensors.items()}, rank)
    return target

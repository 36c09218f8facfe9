"""Training state as safetensors and JSON: parameters, optimiser moments, counters. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffpref.core.errors import CheckpointError
from diffpref.core.files import read_json, write_json

__all__ = ["load_optimizer", "load_tensors", "save_optimizer", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors. Each gets memory of its own, so that tied or strided tensors can be stored."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read what `save_tensors` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    except Exception as error:  # safetensors raises its own type, which shares no base but Exception
        if type(error).__name__ != "SafetensorError":
            raise
        raise CheckpointError(f"{path}: damaged safetensors file ({error})") from error


def save_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write ``optimizer.safetensors`` (moments) and ``optimizer.json`` (groups and scalar state)."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    save_tensors(folder / "optimizer.safetensors", tensors)
    write_json(folder / "optimizer.json", {"scalars": scalars, "groups": state["param_groups"]})


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore what `save_optimizer` wrote into an optimiser over the same parameters.

    Raises:
        CheckpointError: the parameter groups differ in number or size.
    """
    described = read_json(folder / "optimizer.json")
    sizes = [len(group["params"]) for group in described["groups"]]
    expected = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != expected:
        raise CheckpointError(f"{folder}: optimiser groups of {sizes} parameters, this run has {expected}")
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in load_tensors(folder / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for index, values in described["scalars"].items():
        state.setdefault(int(index), {}).update(values)
    groups = [{**g, "betas": tuple(g["betas"])} if "betas" in g else g for g in described["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

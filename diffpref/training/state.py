"""Training state as safetensors and JSON: parameters, optimiser moments, counters. No pickle anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffpref.core.errors import CheckpointError
from diffpref.core.files import write_atomic
from diffpref.models.sharding import scatter_tensors

__all__ = ["load_tensors", "pack_optimizer", "restore_optimizer", "safetensors_pieces", "save_tensors"]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
AT_ONCE = 1 << 20
"""Bytes of small tensors that are written together."""


def safetensors_pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the content of a safetensors file: the header, then the tensors, small ones together.

    One tensor at a time is brought to the CPU. The bytes are a function of names and values alone; tied and strided
    tensors are written out. Unlike the library's own writer, what the file system says is not hidden.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # each aligned to its own size
    header, start = {}, 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    small = bytearray(len(text).to_bytes(8, "little") + text)
    for name in order:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if not flat.numel():
            continue
        data = flat.view(torch.uint8).numpy().data
        if len(small) + data.nbytes <= AT_ONCE:
            small += data
            continue
        yield bytes(small)
        small = bytearray()
        yield data
    yield bytes(small)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as a safetensors file, atomically."""
    write_atomic(path, safetensors_pieces(tensors))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return an optimiser's state as tensors (``0.exp_avg``: of the first parameter) and JSON-ready values."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in _flat(values):
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"scalars": scalars, "groups": state["param_groups"]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], described: Mapping[str, Any]
) -> None:
    """Put what `pack_optimizer` returned into an optimiser over the same parameters.

    Raises:
        CheckpointError: the parameter groups differ in number or size, or a moment does not fit its parameter.
    """
    sizes = [len(group["params"]) for group in described["groups"]]
    expected = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != expected:
        raise CheckpointError(f"optimiser groups of {sizes} parameters, this run has {expected}")
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    like = {name: parameters[int(name.split(".", 1)[0])] for name in tensors}
    for name, tensor in scatter_tensors(tensors, like).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for index, values in described["scalars"].items():
        state.setdefault(int(index), {}).update(values)
    state = {index: _nested(values) for index, values in state.items()}
    groups = []
    for own, saved in zip(optimizer.param_groups, described["groups"], strict=True):
        group = {**own, **saved}  # what a checkpoint of an earlier version does not name is as it is now
        groups.append({**group, "betas": tuple(group["betas"])} if "betas" in group else group)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the state of a parameter; 8-bit moments lie one level deeper, under ``outer.inner``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", deeper) for inner, deeper in value.items())
        else:
            yield name, value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    return nested

"""What every objective's tensors must be before the formula sees them: of the named shapes, one dtype, detached."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError
from diffpref.core.vocabulary import FULL, WIDE, Name, parse

__all__ = ["check_shapes", "promote"]


def _shape_class(name: Name) -> tuple[object, ...]:
    """Names of one class have equal shapes; sequences of tokens may differ in length between chosen and rejected."""
    if name.quantity in FULL:  # as large as the model's input
        return ("full", name.quantity == "hidden", name.group, name.unit)
    wide = name.quantity if name.quantity in WIDE or name.several else ""
    return (name.group == "list", name.unit, name.group if name.unit == "token" else "", wide)


def check_shapes(name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors when each has the shape that its name promises, and those that go together agree.

    Raises:
        ShapeError: naming the objective, the tensors and their shapes.
    """
    parsed = {key: parse(key) for key in tensors}
    first = next(iter(tensors))
    expected: dict[tuple[object, ...], str] = {}
    for key, tensor in tensors.items():
        where = f"objective '{name}': {key} has shape {tuple(tensor.shape)}"
        if tensor.dim() == 0 or len(tensor) != len(tensors[first]):
            raise ShapeError(f"{where}, {first} has {tuple(tensors[first].shape)}; both need one row a record")
        ndim = parsed[key].ndim
        if parsed[key].kind == "free" or parsed[key].quantity == "std":  # one a record, or one an element
            continue
        if ndim is not None and tensor.dim() != ndim:
            raise ShapeError(f"{where}; expected {ndim} dimension{'s' * (ndim > 1)}")
        other = expected.setdefault(_shape_class(parsed[key]), key)
        if tensor.shape != tensors[other].shape:
            raise ShapeError(f"{where}, {other} has {tuple(tensors[other].shape)}; they must be equal")
    # A column such as preference is (B,), or shaped like a tensor it goes with; (B, 1) would broadcast to (B, B).
    shapes = {tuple(tensor.shape) for key, tensor in tensors.items() if parsed[key].kind != "free"}
    for key, tensor in tensors.items():
        if parsed[key].kind == "free" and tensor.dim() > 1 and tuple(tensor.shape) not in shapes:
            raise ShapeError(f"objective '{name}': {key} has shape {tuple(tensor.shape)}; expected ({len(tensor)},)")
    return tensors


def promote(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cast floats to one dtype and cut the gradient of everything that neither the policy nor a peer computed."""
    kinds = {key: parse(key) for key in tensors}
    leading = [tensor for key, tensor in tensors.items() if kinds[key].kind == "model"] or list(tensors.values())
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in leading) else torch.float32
    result = {}
    for key, tensor in tensors.items():
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        result[key] = tensor if kinds[key].trained else tensor.detach()
    return result

"""Weights beyond the newer of two states: newer + amount * (newer - older), exactly, for whole networks and for LoRAs.

A LoRA is a product of two factors, so its extrapolation is one of the products, not of the factors: the ranks of the
two states are put side by side, and where that is too much the product is cut to the nearest one of a given rank.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ShapeError

__all__ = ["cut_lora", "extrapolate", "extrapolate_lora", "lora_layers"]

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def extrapolate(newer: Tensors, older: Tensors, amount: float) -> dict[str, Tensor]:
    """Return newer + amount * (newer - older) for weights by name, in the dtype of ``newer``.

    Computed in float64. Tensors that are no floating-point numbers, such as counters, are those of ``newer``.

    Raises:
        ShapeError: names or shapes differ.

    >>> found = extrapolate({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, 1.0])}, 0.3)
    >>> [round(x, 4) for x in found["w"].tolist()]
    [1.15, 2.3]
    """
    _check_alike(newer, older)
    if odd := [name for name, tensor in newer.items() if tensor.shape != older[name].shape]:
        raise ShapeError(f"the two states are of other models: {len(odd)} shapes differ, the first is that of {odd[0]}")

    def beyond(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return (tensor.double() + amount * (tensor.double() - older[name].double())).to(tensor.dtype)

    return {name: beyond(name, tensor) for name, tensor in newer.items()}


def lora_layers(state: Tensors) -> list[str]:
    """Return the names of the layers that a LoRA adapts.

    Raises:
        ShapeError: a tensor is neither of the two factors of a layer, or one of them is missing.
    """
    layers = sorted({name.removesuffix(end) for name in state for end in (DOWN, UP) if name.endswith(end)})
    expected = {f"{layer}{end}" for layer in layers for end in (DOWN, UP)}
    if odd := sorted(expected ^ set(state)):
        raise ShapeError(f"not the factors of a LoRA: {len(odd)} names are odd or missing, the first is {odd[0]}")
    return layers


def extrapolate_lora(
    newer: Tensors, older: Tensors, amount: float, *, scales: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Tensor]:
    """Return factors whose product is that of ``newer`` plus amount times what it is more than that of ``older``.

    Args:
        newer: PEFT's names to (rank, ...) and (..., rank) factors.
        older: of the same layers; the rank may be another.
        amount: of the extrapolation.
        scales: alpha / rank of each; the result's is 1.

    Returns:
        Factors of the two ranks together, float32.

    Raises:
        ShapeError: the layers differ.
    """
    layers = lora_layers(newer)
    _check_alike(layers, lora_layers(older))
    shares = ((1 + amount) * scales[0], -amount * scales[1])
    result = {}
    for layer in layers:
        result[f"{layer}{DOWN}"] = torch.cat([newer[f"{layer}{DOWN}"].float(), older[f"{layer}{DOWN}"].float()])
        ups = [share * state[f"{layer}{UP}"].float() for share, state in zip(shares, (newer, older), strict=True)]
        result[f"{layer}{UP}"] = torch.cat(ups, dim=1)
    return result


def cut_lora(state: Tensors, rank: int) -> dict[str, Tensor]:
    """Return the factors of the nearest products of a rank: singular values below the first ``rank`` are left out.

    Layers whose factors have that rank or less keep it, filled up with zeros, so that all layers have one rank.

    Raises:
        ShapeError: these are not the factors of a LoRA.
    """
    result = {}
    for layer in lora_layers(state):
        down, up = state[f"{layer}{DOWN}"], state[f"{layer}{UP}"]
        # of the small inner matrix only: the factors are tall, their product is huge
        q_up, r_up = torch.linalg.qr(up.flatten(1).double())
        q_down, r_down = torch.linalg.qr(down.flatten(1).double().T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T)
        kept = min(rank, len(values))
        root = values[:kept].sqrt()
        new_up = up.new_zeros(len(up), rank, dtype=torch.float64)
        new_down = down.new_zeros(rank, q_down.shape[0], dtype=torch.float64)
        new_up[:, :kept] = (q_up @ left[:, :kept]) * root
        new_down[:kept] = root[:, None] * (right[:kept] @ q_down.T)
        result[f"{layer}{DOWN}"] = new_down.float().reshape(rank, *down.shape[1:])
        result[f"{layer}{UP}"] = new_up.float().reshape(len(up), rank, *up.shape[2:])
    return result


def _check_alike(newer: Collection[str], older: Collection[str]) -> None:
    if odd := sorted(set(newer) ^ set(older)):
        raise ShapeError(f"the two states are of other models: {len(odd)} names differ, the first is {odd[0]}")

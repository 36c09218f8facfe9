"""Heads of linear layers with nothing in between: at evaluation one affine map of a normalised embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpref.rewards._layout import fill

__all__ = ["HIDDEN", "Layers", "affine_score", "folded", "linear_layers"]

Layers: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Weight (out, in) and bias (out,) of each layer, the first first."""

HIDDEN = (1024, 128, 64, 16, 1)
"""Widths after the embedding's own, of both published aesthetic predictors."""


def linear_layers(
    tensors: Mapping[str, Tensor], prefix: str, numbers: Sequence[int], width: int, path: str | Path
) -> Layers:
    """Return the layers of a published head in float64, after looking at every name and shape.

    Args:
        tensors: of the checkpoint.
        prefix: of their names, such as ``layers``.
        numbers: places of the linear layers; dropouts stand between.
        width: of the embedding.
        path: for messages.

    Raises:
        ModelError: tensors are missing, unknown or of another shape.
    """
    with torch.device("meta"):
        widths = (width, *HIDDEN)
        layers = nn.ModuleDict({str(n): nn.Linear(widths[k], widths[k + 1]) for k, n in enumerate(numbers)})
        head = nn.ModuleDict({prefix: layers})
    fill(head, tensors, path, dtype=torch.float64)
    return [(layer.weight, layer.bias) for layer in layers.values() if isinstance(layer, nn.Linear)]


def folded(layers: Layers) -> tuple[Tensor, Tensor]:
    """Return the one map that the layers are: (D,) weight and a bias, float64."""
    size = layers[0][0].shape[1]
    weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for own, shift in layers:
        weight, bias = own.double() @ weight, own.double() @ bias + shift.double()
    return weight[0], bias[0]


def affine_score(embeds: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``weight . embeds / |embeds| + bias``.

    Args:
        embeds: (N, D) of any norm; one of zeros stays zeros.
        weight: (D,).
        bias: a number.

    Returns:
        (N,) float32; float64 for float64 embeddings.
    """
    embeds = embeds if embeds.dtype == torch.float64 else embeds.float()
    return functional.normalize(embeds, dim=-1) @ weight.to(embeds) + bias.to(embeds)

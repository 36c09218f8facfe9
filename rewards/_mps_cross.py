"""What MPS puts on a CLIP model: blocks in which the tokens of a picture attend to those of a text, then to each other.

Modules have the names of the official code's (``trainer/models/cross_modeling.py``), so that its state dict is loaded
key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpref.rewards._layout import num_layers

__all__ = ["CrossModel", "condition_mask"]


def condition_mask(text: Tensor, condition: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Say which tokens of a text a condition is about.

    Args:
        text: (..., T, D) projected tokens of a text, not normalised.
        condition: (L, D) projected tokens of the condition's words.
        threshold: share of the text's largest similarity that a token must exceed.

    Returns:
        (..., T) the largest product with a token of the condition, divided by the largest of the same text; and whether
        it is above the threshold. The official code divides by the largest of the batch, on which its scores depend.
    """
    similarity = (text @ condition.transpose(-1, -2)).amax(dim=-1)
    relative = similarity / similarity.amax(dim=-1, keepdim=True)
    return relative, relative > threshold


def _swiglu(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def _rotate(x: Tensor) -> Tensor:
    """Turn (..., S, D) by angles that grow with the place: feature i with feature i + D/2."""
    length, width = x.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    frequency = 10000.0 ** -(torch.arange(0, width, 2, device=x.device, dtype=dtype) / width)
    angle = torch.arange(length, device=x.device, dtype=dtype)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _multi_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend with (N, H, S, D) queries to keys and values (N, T, D) that all heads share; returns (N, S, H * D)."""
    key, value = (x[:, None].expand(-1, query.shape[1], -1, -1) for x in (key, value))
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return seen.transpose(1, 2).flatten(2)


class _Cross(nn.Module):
    """From picture to text, with a feed-forward part of the same input beside it."""

    def __init__(self, width: int, head_width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)
        ends = {"0": nn.Linear(width, 2 * inner, bias=False), "2": nn.Linear(inner, width, bias=False)}
        self.ff = nn.ModuleDict(ends)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x)
        query = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.to_kv(text).chunk(2, dim=-1)
        seen = self.to_out(_multi_query(query, key, value, mask))
        result: Tensor = seen + self.ff["2"](_swiglu(self.ff["0"](x)))
        return result


class _Own(nn.Module):
    """From picture to picture, with rotary places and a feed-forward part of the same input beside it."""

    def __init__(self, width: int, head_width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.parts = heads, (heads * head_width, head_width, head_width, 2 * inner)
        self.norm = nn.LayerNorm(width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff_out = nn.ModuleDict({"1": nn.Linear(inner, width, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, hidden = self.fused_attn_ff_proj(self.norm(x)).split(self.parts, dim=-1)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        seen = self.attn_out(_multi_query(_rotate(query), _rotate(key), value))
        result: Tensor = seen + self.ff_out["1"](_swiglu(hidden))
        return result


class CrossModel(nn.Module):
    """Blocks of two residual parts, ``layers.N.0.fn`` and ``layers.N.1.fn``.

    Args:
        width: of the tokens.
        head_width: of each attention head.
        heads: of each attention.
        inner: width of the feed-forward parts.
        layers: how many blocks.
    """

    def __init__(self, width: int, head_width: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()

        def block() -> nn.ModuleList:
            parts = (_Cross(width, head_width, heads, inner), _Own(width, head_width, heads, inner))
            return nn.ModuleList(nn.ModuleDict({"fn": part}) for part in parts)

        self.layers = nn.ModuleList(block() for _ in range(layers))

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> CrossModel:
        """Return one without weights, of the sizes that a state dict has.

        Raises:
            KeyError: a tensor is missing.
        """
        head_width = tensors["layers.0.0.fn.to_kv.weight"].shape[0] // 2
        with torch.device("meta"):
            return CrossModel(
                width=tensors["layers.0.0.fn.norm.weight"].shape[0],
                head_width=head_width,
                heads=tensors["layers.0.0.fn.to_q.weight"].shape[0] // head_width,
                inner=tensors["layers.0.0.fn.ff.2.weight"].shape[1],
                layers=num_layers(tensors, "layers."),
            )

    def forward(self, picture: Tensor, text: Tensor, kept: Tensor) -> Tensor:
        """Return (N, S, D) tokens of pictures that have seen texts.

        Args:
            picture: (N, S, D).
            text: (N, T, D).
            kept: (N, T), true for the tokens of the text that may be seen; at least one of each text.
        """
        mask = kept[:, None, None, :]
        layers: Any = self.layers
        for cross, own in layers:
            picture = picture + cross["fn"](picture, text, mask)
            picture = picture + own["fn"](picture)
        return picture

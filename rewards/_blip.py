"""BLIP as ImageReward uses it: a vision transformer, and a BERT that reads the prompt while it attends to the picture.

Modules have the names of the published state dict, so that it is loaded key by key. The architecture is that of Li et
al., arXiv 2201.12086, and Xu et al., arXiv 2304.05977; constants that no file says, such as the vision transformer's
epsilon of 1e-6, follow the official code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpref.rewards._affine_head import folded
from diffpref.rewards._layout import num_layers

__all__ = ["Blip", "BlipSizes", "affine"]

HEAD_WIDTH = 64
"""Of each attention head of the vision transformers: 12 heads of ViT-B, 16 of ViT-L."""
MLP = (0, 2, 4, 6, 7)
"""Numbers of the linear layers of the head; dropouts, which do nothing here, have the others."""


@dataclass(frozen=True)
class BlipSizes:
    """Sizes of the two towers.

    Args:
        image_size: side of the square that the vision transformer reads, pixels.
        patch_size: side of its patches, pixels.
        vision_width: of its tokens.
        vision_layers: how many blocks it has.
        vocab_size: of the text tower.
        positions: longest text, tokens.
        text_width: of its tokens.
        text_layers: how many layers it has.
        text_heads: of each attention.
        text_inner: width between the two linear layers.
        text_epsilon: of its layer normalisation.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vocab_size: int
    positions: int
    text_width: int
    text_layers: int
    text_heads: int
    text_inner: int
    text_epsilon: float

    @staticmethod
    def of(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> BlipSizes:
        """Read the vision transformer's sizes off its tensors, the text tower's from ``med_config.json``.

        Raises:
            KeyError: a tensor or a key is missing.
            ValueError: an activation other than gelu, a picture that is no square of patches, or widths that heads do
                not divide.
        """
        positions = tensors["blip.visual_encoder.pos_embed"]
        patch = tensors["blip.visual_encoder.patch_embed.proj.weight"].shape[-1]
        side = math.isqrt(positions.shape[1] - 1)
        if side**2 != positions.shape[1] - 1:
            raise ValueError(f"{positions.shape[1]} positions of the vision transformer are no square and a class")
        if positions.shape[2] % HEAD_WIDTH or int(config["hidden_size"]) % int(config["num_attention_heads"]):
            raise ValueError(f"a width is no multiple of its attention heads: {positions.shape[2]} and {config}")
        if config.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"hidden_act must be gelu, got '{config['hidden_act']}'")
        return BlipSizes(
            image_size=side * patch,
            patch_size=patch,
            vision_width=positions.shape[2],
            vision_layers=num_layers(tensors, "blip.visual_encoder.blocks."),
            vocab_size=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            text_width=int(config["hidden_size"]),
            text_layers=int(config["num_hidden_layers"]),
            text_heads=int(config["num_attention_heads"]),
            text_inner=int(config["intermediate_size"]),
            text_epsilon=float(config["layer_norm_eps"]),
        )


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attend from (N, T, D) to (N, S, D); ``mask`` (N, 1, 1, S) is true where there is something to see."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


class _VisionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.attn["proj"](_attend(query, key, value, self.heads))
        hidden: Tensor = self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + hidden


class _Vision(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        width, patch = sizes.vision_width, sizes.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (sizes.image_size // patch) ** 2 + 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(_VisionBlock(width) for _ in range(sizes.vision_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        return tokens


class _TextLayer(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.heads, width, inner = sizes.text_heads, sizes.text_width, sizes.text_inner

        def after(size: int) -> nn.ModuleDict:
            norm = nn.LayerNorm(width, eps=sizes.text_epsilon)
            return nn.ModuleDict({"dense": nn.Linear(size, width), "LayerNorm": norm})

        def attention(context: int) -> nn.ModuleDict:
            parts = {"query": nn.Linear(width, width), "key": nn.Linear(context, width)}
            parts["value"] = nn.Linear(context, width)
            return nn.ModuleDict({"self": nn.ModuleDict(parts), "output": after(width)})

        self.attention, self.crossattention = attention(width), attention(sizes.vision_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = after(inner)

    def _attended(self, parts: Any, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        own, output = parts["self"], parts["output"]
        seen = _attend(own["query"](x), own["key"](context), own["value"](context), self.heads, mask)
        result: Tensor = output["LayerNorm"](output["dense"](seen) + x)
        return result

    def forward(self, x: Tensor, mask: Tensor, picture: Tensor) -> Tensor:
        x = self._attended(self.attention, x, x, mask)
        x = self._attended(self.crossattention, x, picture)
        hidden = self.output["dense"](functional.gelu(self.intermediate["dense"](x)))
        result: Tensor = self.output["LayerNorm"](hidden + x)
        return result


class _Text(nn.Module):
    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(sizes.vocab_size, width),
                "position_embeddings": nn.Embedding(sizes.positions, width),
                "LayerNorm": nn.LayerNorm(width, eps=sizes.text_epsilon),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_TextLayer(sizes) for _ in range(sizes.text_layers))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, picture: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embeddings["word_embeddings"](input_ids) + self.embeddings["position_embeddings"](places)
        x, mask = self.embeddings["LayerNorm"](x), attention_mask.bool()[:, None, None, :]
        layers: Any = self.encoder["layer"]
        for layer in layers:
            x = layer(x, mask, picture)
        return x


class Blip(nn.Module):
    """The two towers under the names ``blip.visual_encoder`` and ``blip.text_encoder``, and the head ``mlp``.

    Args:
        sizes: of the towers.
        head: widths of the head's linear layers after the first.
    """

    def __init__(self, sizes: BlipSizes, head: tuple[int, ...] = (1024, 128, 64, 16, 1)) -> None:
        super().__init__()
        self.sizes = sizes
        self.blip = nn.ModuleDict({"visual_encoder": _Vision(sizes), "text_encoder": _Text(sizes)})
        widths = (sizes.text_width, *head)
        layers = {str(n): nn.Linear(a, b) for n, a, b in zip(MLP, widths[:-1], widths[1:], strict=True)}
        self.mlp = nn.ModuleDict({"layers": nn.ModuleDict(layers)})

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (N, D) float32: the last hidden state of a prompt's first token, which has seen the picture.

        Args:
            pixels: (N, 3, S, S) normalised.
            input_ids: (N, T) tokens, the first of which is [CLS].
            attention_mask: (N, T), 1 where there is a token.
        """
        picture = self.blip["visual_encoder"](pixels)
        features: Tensor = self.blip["text_encoder"](input_ids, attention_mask, picture)[:, 0]
        return features.float()


def affine(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the head of a state dict as one affine map, (D,) weights and a bias in float64: it has no activations."""
    return folded([(tensors[f"mlp.layers.{n}.weight"], tensors[f"mlp.layers.{n}.bias"]) for n in MLP])

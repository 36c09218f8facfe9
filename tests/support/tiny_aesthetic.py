"""Aesthetic predictors at toy size: heads of the published widths on tiny random CLIP and SigLIP models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from tiny_encoders import save_clip
from torch import Tensor

__all__ = ["HEADS", "head", "save_aesthetic", "save_siglip"]

HEADS = {
    "aesthetic_v2": ("sac+logos+ava1-l14-linearMSE.pth", "layers", (0, 2, 4, 6, 7), torch.float32),
    "aesthetic_v25": ("aesthetic_predictor_v2_5.pth", "scoring_head", (0, 2, 4, 6, 8), torch.bfloat16),
}
"""File, prefix of the names, places of the linear layers and dtype, as published."""


def head(prefix: str, numbers: Sequence[int], dtype: torch.dtype, width: int) -> dict[str, Tensor]:
    """Return random layers width -> 1024 -> 128 -> 64 -> 16 -> 1."""
    random = torch.Generator().manual_seed(4)
    tensors = {}
    for number, (rows, columns) in zip(numbers, pairwise((width, 1024, 128, 64, 16, 1)), strict=True):
        weight = torch.randn(columns, rows, generator=random) * rows**-0.5
        tensors[f"{prefix}.{number}.weight"] = weight.to(dtype)
        tensors[f"{prefix}.{number}.bias"] = torch.randn(columns, generator=random).to(dtype)
    return tensors


def save_siglip(folder: Path) -> Path:
    """What `SiglipModel` with its image processor saves: 64 pixels, embeddings 24 wide."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tower = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**tower, "hidden_size": 24, "vocab_size": 32, "max_position_embeddings": 8},
        vision_config={**tower, "hidden_size": 24, "image_size": 64, "patch_size": 16},
    )
    torch.manual_seed(0)
    model = SiglipModel(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def save_aesthetic(folder: Path, name: str) -> Path:
    """Write an encoder and the published head for it into one folder."""
    (save_clip if name == "aesthetic_v2" else save_siglip)(folder)
    file, prefix, numbers, dtype = HEADS[name]
    torch.save(head(prefix, numbers, dtype, 12 if name == "aesthetic_v2" else 24), folder / file)
    return folder

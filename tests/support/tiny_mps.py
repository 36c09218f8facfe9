"""A checkpoint of MPS's layout at toy size: transformers' CLIPModel and the names of the official cross model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import save_clip
from torch import Tensor

__all__ = ["HEADS", "HEAD_WIDTH", "LAYERS", "WIDTH", "cross_shapes", "save_mps"]

WIDTH, HEADS, HEAD_WIDTH, LAYERS = 12, 3, 8, 2  # 12 is the projection of `save_clip`
INNER = 4 * WIDTH


def cross_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the official ``Cross_model``'s state dict, at toy size."""
    found: dict[str, tuple[int, ...]] = {}
    for number in range(LAYERS):
        cross, own = f"layers.{number}.0.fn", f"layers.{number}.1.fn"
        fused = HEADS * HEAD_WIDTH + 2 * HEAD_WIDTH + 2 * INNER
        found |= {
            f"{cross}.norm.weight": (WIDTH,),
            f"{cross}.norm.bias": (WIDTH,),
            f"{cross}.to_q.weight": (HEADS * HEAD_WIDTH, WIDTH),
            f"{cross}.to_kv.weight": (2 * HEAD_WIDTH, WIDTH),
            f"{cross}.to_out.weight": (WIDTH, HEADS * HEAD_WIDTH),
            f"{cross}.ff.0.weight": (2 * INNER, WIDTH),
            f"{cross}.ff.2.weight": (WIDTH, INNER),
            f"{own}.norm.weight": (WIDTH,),
            f"{own}.norm.bias": (WIDTH,),
            f"{own}.rotary_emb.inv_freq": (HEAD_WIDTH // 2,),
            f"{own}.fused_attn_ff_proj.weight": (fused, WIDTH),
            f"{own}.attn_out.weight": (WIDTH, HEADS * HEAD_WIDTH),
            f"{own}.ff_out.1.weight": (WIDTH, INNER),
        }
    return found


def _cross_state() -> dict[str, Tensor]:
    random, state = torch.Generator().manual_seed(5), {}
    for name, shape in cross_shapes().items():
        noise = torch.randn(shape, generator=random)
        if "norm" in name:
            state[name] = 1 + 0.2 * noise if name.endswith("weight") else torch.zeros(shape)  # a buffer of zeros
        elif "inv_freq" in name:
            state[name] = 10000.0 ** -(torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
        else:
            state[name] = noise / shape[1] ** 0.5
    return state


def save_mps(folder: Path) -> Path:
    """Write CLIP's configuration, tokenizer and image processor, and the state dict of the whole module."""
    save_clip(folder)
    (weights,) = folder.glob("*.safetensors")
    clip = {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
    weights.unlink()
    positions = {"model.text_model.embeddings.position_ids": torch.arange(16).unsqueeze(0)}  # transformers 4 stored it
    cross = {f"cross_model.{name}": tensor for name, tensor in _cross_state().items()}
    save_file({**clip, **positions, **cross}, folder / "MPS_overall_checkpoint.safetensors")
    return folder

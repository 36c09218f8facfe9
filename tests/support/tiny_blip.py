"""A checkpoint of ImageReward's layout at toy size: the names of the published file, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["CONFIG", "SIDE", "blip_state", "save_bert_vocabulary", "save_blip"]

SIDE, PATCH, VISION, WIDTH = 64, 16, 128, 48
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "green", "white", "circle", "square", "ring")
WORDS += ("cross", "number", *"0123456789", *(f"##{digit}" for digit in "0123456789"))
CONFIG = {
    "vocab_size": len(WORDS) + 2,  # [DEC] and [ENC] have no line in the vocabulary
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "encoder_width": 768,  # as published: it is overwritten by the vision transformer's
}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the published state dict, at toy size."""
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    found: dict[str, tuple[int, ...]] = {
        f"{vision}.cls_token": (1, 1, VISION),
        f"{vision}.pos_embed": (1, (SIDE // PATCH) ** 2 + 1, VISION),
        f"{vision}.patch_embed.proj.weight": (VISION, 3, PATCH, PATCH),
        f"{vision}.patch_embed.proj.bias": (VISION,),
        **_norm(f"{vision}.norm", VISION),
        f"{text}.embeddings.word_embeddings.weight": (CONFIG["vocab_size"], WIDTH),
        f"{text}.embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], WIDTH),
        **_norm(f"{text}.embeddings.LayerNorm", WIDTH),
        **_linear("blip.vision_proj", 256, VISION),
        **_linear("blip.text_proj", 256, WIDTH),
    }
    for number in range(2):
        block = f"{vision}.blocks.{number}"
        found |= _norm(f"{block}.norm1", VISION) | _norm(f"{block}.norm2", VISION)
        found |= _linear(f"{block}.attn.qkv", 3 * VISION, VISION) | _linear(f"{block}.attn.proj", VISION, VISION)
        found |= _linear(f"{block}.mlp.fc1", 4 * VISION, VISION) | _linear(f"{block}.mlp.fc2", VISION, 4 * VISION)
        layer = f"{text}.encoder.layer.{number}"
        for kind, context in (("attention", WIDTH), ("crossattention", VISION)):
            found |= _linear(f"{layer}.{kind}.self.query", WIDTH, WIDTH)
            for part in ("key", "value"):
                found |= _linear(f"{layer}.{kind}.self.{part}", WIDTH, context)
            found |= _linear(f"{layer}.{kind}.output.dense", WIDTH, WIDTH)
            found |= _norm(f"{layer}.{kind}.output.LayerNorm", WIDTH)
        found |= _linear(f"{layer}.intermediate.dense", CONFIG["intermediate_size"], WIDTH)
        found |= _linear(f"{layer}.output.dense", WIDTH, CONFIG["intermediate_size"])
        found |= _norm(f"{layer}.output.LayerNorm", WIDTH)
    widths = (WIDTH, 1024, 128, 64, 16, 1)
    for number, inputs, outputs in zip((0, 2, 4, 6, 7), widths[:-1], widths[1:], strict=True):
        found |= _linear(f"mlp.layers.{number}", outputs, inputs)
    return found


def blip_state(seed: int = 0) -> dict[str, Tensor]:
    """A state dict whose towers say something: weights of unit gain, and a buffer that old libraries stored."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes().items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 0
        noise = torch.randn(shape, generator=random)
        if "orm" in name and name.endswith("weight"):
            state[name] = 1 + 0.2 * noise
        elif len(shape) == 1 or ("embed" in name and "proj" not in name) or "token" in name:
            state[name] = 0.3 * noise
        else:
            state[name] = 1.5 * noise / fan_in**0.5
    positions = torch.arange(CONFIG["max_position_embeddings"]).unsqueeze(0)
    return {**state, "blip.text_encoder.embeddings.position_ids": positions}


def save_bert_vocabulary(folder: Path) -> None:
    """Write ``vocab.txt``."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")


def save_blip(folder: Path, weights: str = "ImageReward.safetensors") -> Path:
    """Write the published files, and the tokenizer's."""
    save_bert_vocabulary(folder)
    (folder / "med_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file(blip_state(), folder / weights)
    return folder

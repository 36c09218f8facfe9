"""A CLIP-T5 at toy size with random weights, laid out as the authors' class saves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save_clip_t5", "save_t5_tokenizer"]

WIDTH = 24
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


def save_t5_tokenizer(folder: Path) -> Any:
    """FLAN-T5's tokenizer over single letters."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127) if chr(code) not in "~{}"]
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *letters, "\u2581Yes"]
    tokenizer = T5Tokenizer(vocab=[(piece, -float(i > 3)) for i, piece in enumerate(pieces)], extra_ids=0)
    tokenizer.save_pretrained(folder)
    return tokenizer


def state_of(vocabulary: int, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    """Return the config, the weights by published names, tower and all, and the tower itself."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

    told = {
        "architectures": ["CLIPT5ForConditionalGeneration"],
        "model_type": "clip_t5",
        "vocab_size": vocabulary,
        "d_model": WIDTH,
        "d_kv": 6,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_hidden_size": TOWER["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
    }
    torch.manual_seed(seed)
    kept = {name: value for name, value in told.items() if name not in ("model_type", "architectures")}
    language = T5ForConditionalGeneration(T5Config(**kept))
    tower = CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8, hidden_act="quick_gelu"))
    for parameter in (*language.parameters(), *tower.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    state = {name: tensor.clone() for name, tensor in language.state_dict().items()}
    state["lm_head.weight"] = torch.randn_like(state["lm_head.weight"]) * 0.3  # FLAN-T5 has a head of its own
    state["embed_tokens.weight"] = state["shared.weight"].clone()
    for layer, wide in ((0, TOWER["hidden_size"]), (2, WIDTH)):
        state[f"mm_projector.{layer}.weight"] = torch.randn(WIDTH, wide) * 0.3
        state[f"mm_projector.{layer}.bias"] = torch.randn(WIDTH) * 0.1
    for name, tensor in tower.state_dict().items():
        state[f"vision_tower.vision_tower.vision_model.{name}"] = tensor.clone()
    return told, state, tower


def save_clip_t5(folder: Path, *, apart: bool = True, parts: int = 1, pickled: bool = False) -> Path:
    """Write the checkpoint.

    Args:
        folder: where.
        apart: the tower's weights lie in ``vision_tower`` alone; else in the checkpoint too, and others there.
        parts: files over which the weights are spread.
        pickled: as ``pytorch_model*.bin``.
    """
    from transformers import CLIPImageProcessor

    folder.mkdir(exist_ok=True)
    tokenizer = save_t5_tokenizer(folder)
    told, state, tower = state_of(len(tokenizer) + 3)
    (folder / "config.json").write_text(json.dumps(told))
    if apart:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("vision_tower.")}
    else:
        for parameter in tower.parameters():
            parameter.data.zero_()
    names = sorted(state)
    for part in range(parts):
        some = {name: state[name].contiguous() for name in names[part::parts]}
        if pickled:
            torch.save(some, folder / f"pytorch_model-{part + 1:05}-of-{parts:05}.bin")
        else:
            save_file(some, folder / f"model-{part + 1:05}-of-{parts:05}.safetensors")
    tower.save_pretrained(folder / "vision_tower")
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder / "vision_tower")
    return folder

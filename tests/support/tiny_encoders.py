"""CLIP models of transformers and of open_clip at toy size, with random weights, as their libraries save them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

__all__ = ["register_open_clip", "save_clip", "save_open_clip", "save_open_clip_checkpoint", "save_tokenizer"]


def save_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    words = ["!!", "<|endoftext|>", "<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], pad_token="!!", model_max_length=16)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_clip(folder: Path) -> Path:
    """What `CLIPModel` with its tokenizer and image processor saves; random weights."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = save_tokenizer(folder)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = CLIPConfig(
        text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**tower, "image_size": 64, "patch_size": 16},
        projection_dim=12,
        logit_scale_init_value=3.0,
    )
    torch.manual_seed(0)
    model = CLIPModel(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    size = {"shortest_edge": 64}
    CLIPImageProcessor(size=size, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def save_open_clip(folder: Path) -> Path:
    """A folder that stock open_clip loads offline, with a tokenizer of its own."""
    import open_clip
    from safetensors.torch import save_file

    tokenizer = save_tokenizer(folder)
    text = {"pool_type": "eos", "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 16, "layers": 2, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": len(tokenizer), "width": 16, "heads": 2, "layers": 2, **text},
    }
    config["text_cfg"]["hf_tokenizer_name"] = "."
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**deepcopy(config))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def register_open_clip(folder: Path, name: str = "tiny-hps") -> str:
    """Give open_clip an architecture with its own words, as ViT-H-14 has, and 16 wide; return its name."""
    import open_clip

    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 16, "layers": 2, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def save_open_clip_checkpoint(folder: Path, file: str, name: str = "tiny-hps") -> Path:
    """A training checkpoint as HPS is published: a pickle with the weights under ``state_dict``."""
    import open_clip

    register_open_clip(folder, name)
    torch.manual_seed(2)
    model = open_clip.model.CLIP(**deepcopy(open_clip.get_model_config(name)))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, folder / file)
    return folder

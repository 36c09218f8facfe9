"""One CLIP model in two libraries: transformers' weights under open_clip's names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_encoders import save_clip
from torch import Tensor

__all__ = ["open_clip_names", "save_twins"]


def open_clip_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a transformers ``CLIPModel`` as open_clip's ``CLIP`` has them."""
    found = {
        "logit_scale": state["logit_scale"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "text_projection": state["text_projection.weight"].t(),
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].t(),
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
        for layer in range(2):
            old, new = f"{tower}.encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
            norms |= {f"{new}.ln_1": f"{old}.layer_norm1", f"{new}.ln_2": f"{old}.layer_norm2"}
            for kind in ("weight", "bias"):
                parts = [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                found[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
                found[f"{new}.attn.out_proj.{kind}"] = state[f"{old}.self_attn.out_proj.{kind}"]
                found[f"{new}.mlp.c_fc.{kind}"] = state[f"{old}.mlp.fc1.{kind}"]
                found[f"{new}.mlp.c_proj.{kind}"] = state[f"{old}.mlp.fc2.{kind}"]
    for new, old in norms.items():
        found |= {f"{new}.{kind}": state[f"{old}.{kind}"] for kind in ("weight", "bias")}
    return {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}


def save_twins(folder: Path, *, quick_gelu: bool = True, halves: bool = False) -> tuple[Path, Path]:
    """Write one model with random weights, QuickGELU inside, as transformers and as open_clip save it.

    Args:
        folder: where both go.
        quick_gelu: what open_clip's config says.
        halves: whether its weights were float16 once, as OpenAI's were.
    """
    from transformers import CLIPModel

    ours, theirs = folder / "transformers", folder / "open_clip"
    for one in (ours, theirs):
        one.mkdir(parents=True)
        save_clip(one)
    model = CLIPModel.from_pretrained(ours)
    if halves:
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
        model.save_pretrained(ours)
    (theirs / "config.json").unlink()
    (theirs / "model.safetensors").unlink()
    (theirs / "preprocessor_config.json").unlink()
    save_file(open_clip_names(model.state_dict()), theirs / "open_clip_model.safetensors")
    words = model.config.text_config
    tower = {"width": 16, "layers": 2, "mlp_ratio": 2.0}
    config = {
        "embed_dim": 12,
        "quick_gelu": quick_gelu,
        "vision_cfg": {**tower, "image_size": 64, "patch_size": 16, "head_width": 8},
        "text_cfg": {
            **tower,
            "context_length": 16,
            "vocab_size": words.vocab_size,
            "heads": 2,
            "pool_type": "eos",
            "eos_id": words.eos_token_id,
            "pad_id": words.pad_token_id,
            "hf_tokenizer_name": ".",
        },
    }
    (theirs / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return ours, theirs

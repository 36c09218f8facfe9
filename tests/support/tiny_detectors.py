"""Detectors of transformers at toy size, with random weights, as their library saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_encoders import save_tokenizer

__all__ = ["CLASSES", "save_detr", "save_mask2former", "save_owl"]

CLASSES = {0: "cat", 1: "mouse", 2: "dog", 3: "keyboard"}
SIZE = 64


def _names() -> dict[str, Any]:
    return {"id2label": CLASSES, "label2id": {name: number for number, name in CLASSES.items()}}


def _varied(model: Any) -> Any:
    """Return the model with larger random weights: at their usual size all queries answer alike."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def save_detr(folder: Path) -> Path:
    """A DETR with a backbone of transformers; no stage of it is larger than 16 channels."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    config = DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, d_model=16, num_queries=8, **layers, **heads, **_names()
    )
    _varied(DetrForObjectDetection(config)).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": SIZE, "longest_edge": 2 * SIZE}).save_pretrained(folder)
    return folder


def save_mask2former(folder: Path) -> Path:
    """A Mask2Former on a Swin of four stages."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    backbone = SwinConfig(
        image_size=SIZE,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    torch.manual_seed(1)
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        **_names(),
    )
    _varied(Mask2FormerForUniversalSegmentation(config)).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": SIZE, "longest_edge": 2 * SIZE}).save_pretrained(folder)
    return folder


def save_owl(folder: Path) -> Path:
    """An OWL-ViT with CLIP's tokenizer."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = save_tokenizer(folder)
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    torch.manual_seed(2)
    config = OwlViTConfig(
        text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**tower, "image_size": SIZE, "patch_size": 16},
        projection_dim=16,
    )
    _varied(OwlViTForObjectDetection(config)).save_pretrained(folder)
    processor = OwlViTImageProcessor(size={"height": SIZE, "width": SIZE})
    OwlViTProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder

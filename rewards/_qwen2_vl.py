"""Checkpoints that are a whole Qwen2-VL and a head: their names of tensors, their LoRA, their pictures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffpref.core.errors import DataError, ModelError
from diffpref.rewards._layout import fill
from diffpref.rewards._vlm import VisionLanguage, open_processor
from diffpref.rewards._weights import UNREADABLE, Precision, check_vocabulary, first_line

__all__ = ["Lora", "base_version", "merged", "open_body", "plain", "resized_clip", "resized_picture", "split_head"]

FACTOR = 28
"""Pixels on a side of what becomes one token: 2 x 2 patches of 14 x 14."""
HEAD = "rm_head."
_LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


@dataclass(frozen=True)
class Lora:
    """How much of a LoRA is added to a layer.

    Args:
        rank: of the two factors.
        alpha: the scale is alpha / rank.
        rslora: the scale is alpha / sqrt(rank).
    """

    rank: int
    alpha: float
    rslora: bool = False

    @property
    def scale(self) -> float:
        """By which the product of the factors is multiplied."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names that transformers' ``Qwen2VLModel`` has for them; heads keep theirs."""
    return {_plain(name): tensor for name, tensor in tensors.items()}


def _plain(name: str) -> str:
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")  # of peft
    for prefix in ("visual.", "language_model."):
        if name.startswith((prefix, f"model.{prefix}")):
            return name.removeprefix("model.")
    return re.sub(r"^model\.", "language_model.", name)  # before transformers 4.52


def merged(tensors: Mapping[str, Tensor], path: Path, lora: Lora) -> dict[str, Tensor]:
    """Fold a LoRA into the layers that it belongs to, in float32: W + scale * B A.

    Args:
        tensors: by the names of `plain`: of a layer ``weight``, ``lora_A.weight`` and ``lora_B.weight``.
        path: for messages.
        lora: by the checkpoint's config.

    Returns:
        the tensors without a trace of the LoRA.

    Raises:
        ModelError: half a pair, a pair without its layer, or one of another rank.
    """
    whole: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if found := _LORA.fullmatch(name):
            pairs.setdefault(found["layer"], {})[found["side"]] = tensor
        else:
            whole[name] = tensor
    for layer, pair in pairs.items():
        weight = whole.get(f"{layer}.weight")
        if weight is None or len(pair) != 2:
            raise ModelError(f"{path}: the LoRA of {layer} lacks its {'layer' if weight is None else 'other half'}")
        down, up = pair["A"].float(), pair["B"].float()
        if down.shape != (lora.rank, weight.shape[1]) or up.shape != (weight.shape[0], lora.rank):
            raise ModelError(
                f"{path}: the LoRA of {layer} is {tuple(down.shape)} and {tuple(up.shape)}, expected rank {lora.rank}"
                f" for {tuple(weight.shape)}"
            )
        whole[f"{layer}.weight"] = weight.float() + lora.scale * (up @ down)
    return whole


def split_head(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the network, and those of ``rm_head`` without that prefix."""
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
    return body, {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}


def base_version(processor: Any) -> str:
    """Return ``base-`` and eight digits that change with how words and pictures are read."""
    eyes = processor.image_processor
    read = [sorted(processor.tokenizer.get_vocab().items()), processor.chat_template]
    read += [list(eyes.image_mean), list(eyes.image_std)]
    return f"base-{hashlib.sha256(json.dumps(read).encode()).hexdigest()[:8]}"


def open_body(
    owner: str,
    base: str,
    body: Mapping[str, Tensor],
    path: Path,
    *,
    tokens: tuple[str, ...],
    device: str,
    precision: Precision,
    micro_batch: int,
    processing: Mapping[str, Any],
) -> VisionLanguage:
    """Return a Qwen2-VL below its heads, with a processor that knows the tokens at which they read.

    Args:
        owner: the reward, for messages.
        base: folder or hub id of the config, the tokenizer and the processor.
        body: tensors by the names of `plain`; a head over the vocabulary is not read.
        path: of the tensors, for messages.
        tokens: what training added to the vocabulary, in its order.
        device: where it runs.
        precision: of the network.
        micro_batch: questions of equal shape that run at once.
        processing: further arguments of the processor.

    Raises:
        ModelError: ``base`` holds no Qwen2-VL, or its parts and the tensors do not belong together.
    """
    from accelerate import init_empty_weights
    from transformers import Qwen2VLConfig, Qwen2VLModel

    processor = open_processor(owner, base)
    try:
        config = Qwen2VLConfig.from_pretrained(base)
    except UNREADABLE as error:
        raise ModelError(f"reward '{owner}': {base} holds no config of Qwen2-VL: {first_line(error)}") from error
    processor.tokenizer.add_tokens(list(tokens), special_tokens=True)
    embeds = body.get("language_model.embed_tokens.weight")
    if embeds is None:
        raise ModelError(f"{path}: not the published layout: lacks the embeddings of the tokens")
    check_vocabulary(base, len(processor.tokenizer), embeds.shape[0])
    config.text_config.vocab_size = embeds.shape[0]
    with init_empty_weights(include_buffers=False):
        network = Qwen2VLModel(config)
    fill(network, body, path, dtype=getattr(torch, precision), spare=["lm_head.weight"])
    return VisionLanguage(owner, network.to(device), processor, micro_batch, processing)


def _size(owner: str, number: int, height: int, width: int, least: int, most: int) -> tuple[int, int]:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    try:
        return smart_resize(height, width, FACTOR, least, most)
    except ValueError as error:
        raise DataError(f"reward '{owner}', item {number}: {first_line(error)}") from error


def resized_picture(owner: str, number: int, picture: Image.Image, pixels: int) -> Image.Image:
    """Return a picture of about so many pixels, its sides multiples of 28, its aspect kept (PIL's bicubic).

    Raises:
        DataError: a side is more than 200 times the other.
    """
    height, width = _size(owner, number, picture.height, picture.width, pixels, pixels)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def resized_clip(owner: str, number: int, frames: np.ndarray, least: int, most: int) -> np.ndarray:
    """Return (F, H, W, 3) uint8 frames of ``least`` to ``most`` pixels, sides multiples of 28 (torchvision's bicubic).

    Raises:
        DataError: a side is more than 200 times the other.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional

    size = _size(owner, number, frames.shape[1], frames.shape[2], least, most)
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    resized = functional.resize(pixels, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized.permute(0, 2, 3, 1).numpy()

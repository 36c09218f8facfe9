"""An open_clip model as a dual encoder: from a folder as open_clip writes it, or from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.errors import ConfigError, ModelError, suggest
from diffpref.rewards._dual_encoder import DualEncoder, Framing
from diffpref.rewards._layout import fill
from diffpref.rewards._weights import UNREADABLE, Precision, check_vocabulary, first_line, refuse_pickle

if TYPE_CHECKING:
    from open_clip import CLIP

__all__ = ["CONFIG", "encoder_of", "from_tensors", "is_open_clip", "open_folder"]

CONFIG = "open_clip_config.json"
PURE = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}


def is_open_clip(folder: Path) -> bool:
    """Say whether a folder is laid out as open_clip writes it."""
    return (folder / CONFIG).is_file()


def encoder_of(model: CLIP, tokenizer: Any, preprocess: Any) -> DualEncoder:
    """Return an open_clip model, with its tokenizer and image transform, as a dual encoder."""
    weight = model.logit_scale
    config = model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    dtype = weight.dtype

    def encode_images(pixels: Tensor) -> Tensor:
        embeds: Tensor = model.encode_image(pixels.to(weight.device, dtype))
        return embeds

    def encode_prompts(prompts: list[str]) -> Tensor:
        embeds: Tensor = model.encode_text(tokenizer(prompts).to(weight.device))
        return embeds

    def transform(images: list[Image.Image]) -> Tensor:
        return torch.stack([preprocess(image) for image in images])

    return DualEncoder(
        encode_images=encode_images,
        encode_prompts=encode_prompts,
        preprocess=transform,
        framing=Framing(size, tuple(config["mean"]), tuple(config["std"])),
        logit_scale=float(weight.detach().float().exp()),
    )


def open_folder(folder: Path, *, precision: Precision, device: str, allow_pickle: bool) -> DualEncoder:
    """Load a folder: ``open_clip_config.json``, weights, and the tokenizer's files if it has one of its own.

    Raises:
        ModelError: not such a folder, weights that may not be opened, or a tokenizer of another model.
    """
    import open_clip

    if not is_open_clip(folder):
        raise ModelError(f"{folder} is not an open_clip model: it has no {CONFIG}")
    refuse_pickle(folder, allow_pickle)
    name = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, precision=PURE[precision], device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except UNREADABLE as error:
        raise ModelError(f"{folder}: open_clip cannot load it: {first_line(error)}") from error
    if hasattr(tokenizer, "tokenizer"):  # open_clip's wrapper of a transformers tokenizer
        check_vocabulary(folder, len(tokenizer.tokenizer), model.vocab_size)
    return encoder_of(model.eval().requires_grad_(False), tokenizer, preprocess)


def _configuration(architecture: str) -> dict[str, Any]:
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        raise ConfigError(
            f"open_clip has no architecture '{architecture}'{suggest(architecture, open_clip.list_models())}"
        )
    towers = {**config["vision_cfg"], **config["text_cfg"]}
    if config.get("custom_text") or "timm_model_name" in towers or "hf_model_name" in towers:
        raise ConfigError(f"{architecture} is not one of open_clip's own towers; give a folder with its {CONFIG}")
    return deepcopy(config)


def from_tensors(
    owner: str | Path, architecture: str, tensors: Mapping[str, Tensor], *, precision: Precision, device: str
) -> DualEncoder:
    """Return a model of one of open_clip's architectures that *is* the given tensors: they are not copied.

    Args:
        owner: the file, for messages.
        architecture: open_clip's name, such as ``ViT-H-14``.
        tensors: by the names of open_clip's ``CLIP``.
        precision: of the networks; where it is not that of the tensors, they are cast.
        device: where it runs.

    Raises:
        ConfigError: no such architecture.
        ModelError: the tensors are of another one.
    """
    import open_clip
    from open_clip.model import CLIP, set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    with torch.device("meta"):
        model = CLIP(**_configuration(architecture))
    fill(model, tensors, owner, dtype=getattr(torch, precision))
    if model.attn_mask is not None:  # a constant that no checkpoint holds
        length = model.attn_mask.shape[0]
        model.attn_mask = torch.full((length, length), float("-inf"), dtype=getattr(torch, precision)).triu_(1)
    framing = PreprocessCfg(size=model.visual.image_size)
    set_model_preprocess_cfg(model, {"size": framing.size, "mean": framing.mean, "std": framing.std})
    tokenizer = open_clip.get_tokenizer(architecture)
    return encoder_of(model.to(device), tokenizer, image_transform_v2(framing, is_train=False))

"""An open_clip model as a dual encoder: from a folder as open_clip writes it, or from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.errors import ConfigError, DiffprefError, ModelError, suggest
from diffpref.core.files import read_json
from diffpref.rewards._dual_encoder import DualEncoder, Framing
from diffpref.rewards._layout import fill
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._quick_gelu import OPENAI_MARKS, needs_quick_gelu
from diffpref.rewards._weights import PICKLED, UNREADABLE, Precision, check_vocabulary, first_line, refuse_pickle

if TYPE_CHECKING:
    from open_clip import CLIP

__all__ = ["CONFIG", "encoder_of", "from_tensors", "is_open_clip", "open_folder"]

CONFIG = "open_clip_config.json"
QuickGelu: TypeAlias = bool | Literal["config"] | None
PURE = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}


def is_open_clip(folder: Path) -> bool:
    """Say whether a folder is laid out as open_clip writes it."""
    return (folder / CONFIG).is_file()


def encoder_of(model: CLIP, tokenizer: Any, preprocess: Any) -> DualEncoder:
    """Return an open_clip model, with its tokenizer and image transform, as a dual encoder."""
    weight = model.logit_scale
    config = model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]

    def encode_images(pixels: Tensor) -> Tensor:
        embeds: Tensor = model.encode_image(pixels.to(weight.device, weight.dtype))
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
        framing=Framing(
            size,
            tuple(config["mean"]),
            tuple(config["std"]),
            interpolation=config["interpolation"],
            squash=config["resize_mode"] == "squash",
        ),
        logit_scale=float(weight.detach().float().exp()),
    )


def open_folder(
    folder: Path, *, precision: Precision, device: str, allow_pickle: bool, quick_gelu: QuickGelu = "config"
) -> DualEncoder:
    """Load a folder: ``open_clip_config.json``, weights, and the tokenizer's files if it has one of its own.

    Args:
        folder: see above.
        precision: of the networks.
        device: where it runs.
        allow_pickle: accept weights that only a pickle holds.
        quick_gelu: ``"config"``: as the config says, of weights that are surely not OpenAI's; else `needs_quick_gelu`.

    Raises:
        ModelError: not such a folder, weights that may not be opened, or a tokenizer of another model.
    """
    import open_clip

    if not is_open_clip(folder):
        raise ModelError(f"{folder} is not an open_clip model: it has no {CONFIG}")
    refuse_pickle(folder, allow_pickle)
    name = f"local-dir:{folder}"
    try:
        content = read_json(folder / CONFIG)
        config, framing = content["model_cfg"], content.get("preprocess_cfg", {})
        if not _own_towers(config):
            model, _, preprocess = open_clip.create_model_and_transforms(name, precision=PURE[precision], device=device)
            model.eval().requires_grad_(False)
        else:
            tensors = read_tensors(_weights(folder), allow_pickle=allow_pickle)
            model, preprocess = _filled(folder, config, tensors, framing, quick_gelu, precision)
            model.to(device)
        tokenizer = open_clip.get_tokenizer(name)
    except DiffprefError:
        raise
    except UNREADABLE as error:
        raise ModelError(f"{folder}: open_clip cannot load it: {first_line(error)}") from error
    if hasattr(tokenizer, "tokenizer"):  # open_clip's wrapper of a transformers tokenizer
        check_vocabulary(folder, len(tokenizer.tokenizer), model.vocab_size)
    return encoder_of(model, tokenizer, preprocess)


def from_tensors(
    owner: str | Path,
    architecture: str,
    tensors: Mapping[str, Tensor],
    *,
    precision: Precision,
    device: str,
    framing: Mapping[str, Any] | None = None,
    quick_gelu: QuickGelu = "config",
) -> DualEncoder:
    """Return a model of one of open_clip's architectures that *is* the given tensors: they are not copied.

    Args:
        owner: the file, for messages.
        architecture: open_clip's name, such as ``ViT-H-14``.
        tensors: by the names of open_clip's ``CLIP``.
        precision: of the networks; where it is not that of the tensors, they are cast.
        device: where it runs.
        framing: open_clip's ``preprocess_cfg`` where it is not CLIP's usual one.
        quick_gelu: as `open_folder` takes it.

    Raises:
        ConfigError: no such architecture.
        ModelError: the tensors are of another one.
    """
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        known = open_clip.list_models()
        raise ConfigError(f"open_clip has no architecture '{architecture}'{suggest(architecture, known)}")
    if not _own_towers(config):
        raise ConfigError(f"{architecture} is not one of open_clip's own towers; give a folder with its {CONFIG}")
    model, preprocess = _filled(owner, config, tensors, framing or {}, quick_gelu, precision)
    return encoder_of(model.to(device), open_clip.get_tokenizer(architecture), preprocess)


def _own_towers(config: Mapping[str, Any]) -> bool:
    """Say whether both towers are open_clip's, which are made here; others are made by open_clip itself."""
    towers = {**config["vision_cfg"], **config["text_cfg"]}
    return not (config.get("custom_text") or "timm_model_name" in towers or "hf_model_name" in towers)


def _weights(folder: Path) -> Path:
    """Return the file of the weights; a folder may hold transformers' files beside open_clip's."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", *PICKLED))
    return min(
        files, key=lambda file: (file.suffix != ".safetensors", not file.name.startswith("open_clip"), file.name)
    )


def _filled(
    owner: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    framing: Mapping[str, Any],
    quick_gelu: QuickGelu,
    precision: Precision,
) -> tuple[CLIP, Any]:
    """Return the model of a config and its image transform."""
    from open_clip.model import CLIP, set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    dtype = getattr(torch, precision)
    quick = config.get("quick_gelu", False)
    if quick_gelu != "config":
        quick = needs_quick_gelu(owner, tensors, quick, quick_gelu)
    with torch.device("meta"):
        model = CLIP(**{**deepcopy(dict(config)), "quick_gelu": quick})
    fill(model, tensors, owner, dtype=dtype, spare=OPENAI_MARKS)
    if model.attn_mask is not None:  # a constant that no checkpoint holds
        length = model.attn_mask.shape[0]
        model.attn_mask = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
    preprocess = merge_preprocess_dict(PreprocessCfg(), dict(framing))
    preprocess["size"] = model.visual.image_size
    if preprocess["resize_mode"] not in ("shortest", "squash"):
        raise ModelError(f"{owner}: pictures framed by '{preprocess['resize_mode']}' are not supported")
    set_model_preprocess_cfg(model, preprocess)
    return model, image_transform_v2(PreprocessCfg(**preprocess), is_train=False)

"""Human Preference Score v2 and v2.1 (Wu et al., arXiv 2306.09341), loaded into the open_clip class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._clip_reward import DualEncoderReward
from diffpref.rewards._dual_encoder import DualEncoder, Framing
from diffpref.rewards._weights import (
    UNREADABLE,
    Precision,
    check_vocabulary,
    content_version,
    first_line,
    licence_of,
    locate,
    refuse_pickle,
)

if TYPE_CHECKING:
    from open_clip import CLIP

__all__ = ["ARCHITECTURE", "FILES", "HUB_ID", "encoder_of", "load_hps", "read_checkpoint"]

HUB_ID = "xswu/HPSv2"
FILES = {"v2": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
ARCHITECTURE = "ViT-H-14"
CONFIG = "open_clip_config.json"


def encoder_of(model: CLIP, tokenizer: Any, preprocess: Any) -> DualEncoder:
    """Return an open_clip model, with its tokenizer and image transform, as a dual encoder."""
    weight = model.logit_scale
    config = model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    dtype = model.visual.conv1.weight.dtype

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


def read_checkpoint(model: CLIP, file: Path, allow_pickle: bool) -> None:
    """Load a checkpoint file strictly: safetensors, or a pickle of tensors, possibly under the key ``state_dict``.

    Raises:
        ModelError: a pickle without leave, not a checkpoint, or of another architecture.
    """
    refuse_pickle(file, allow_pickle)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(content.get("state_dict", content), strict=True)
    except UNREADABLE as error:
        raise ModelError(f"{file}: not an HPS checkpoint of {ARCHITECTURE}: {first_line(error)}") from error


def _open_folder(folder: Path, precision: str, device: str, allow_pickle: bool) -> DualEncoder:
    import open_clip

    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is not an open_clip model: it has no {CONFIG}")
    refuse_pickle(folder, allow_pickle)
    name = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, precision=precision, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except UNREADABLE as error:
        raise ModelError(f"{folder}: open_clip cannot load it: {first_line(error)}") from error
    if hasattr(tokenizer, "tokenizer"):  # open_clip's wrapper of a transformers tokenizer
        check_vocabulary(folder, len(tokenizer.tokenizer), model.vocab_size)
    return encoder_of(model.eval().requires_grad_(False), tokenizer, preprocess)


def _open_checkpoint(file: Path, precision: str, device: str, allow_pickle: bool) -> DualEncoder:
    import open_clip

    refuse_pickle(file, allow_pickle)  # before a gigabyte of random weights is drawn
    model, _, preprocess = open_clip.create_model_and_transforms(ARCHITECTURE, precision=precision)
    read_checkpoint(model, file, allow_pickle)
    return encoder_of(model.eval().requires_grad_(False).to(device), open_clip.get_tokenizer(ARCHITECTURE), preprocess)


def _download(hub_id: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, file))
    except (OSError, ValueError) as error:
        raise ModelError(f"{hub_id}: {file} could not be fetched: {first_line(error)}") from error


@registry.register("hps")
def load_hps(
    path: str | None = None,
    *,
    version: Literal["v2", "v2.1"] = "v2.1",
    multiply_100: bool = False,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load a human preference score.

    Args:
        path: the hub id, whose files are pickles; a checkpoint file of the ViT-H-14 layout (``.pt``, or converted to
            ``.safetensors``); or a folder that open_clip loads (``open_clip_config.json``, safetensors, tokenizer).
        version: which file of the hub. Values of v2 and v2.1 cannot be compared; Diffusion-DPO's tables are v2.
        multiply_100: the benchmark's scale (20..34) in place of the cosine (0.15..0.35).
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: images that run at once.
        allow_pickle: accept weights that only a pickle holds; they are read with ``weights_only=True``.
    """
    found = locate("hps", path, HUB_ID)
    number = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}[precision]
    if Path(found).is_dir():
        encoder, name = _open_folder(Path(found), number, device, allow_pickle), content_version(Path(found))
    else:
        file, name = Path(found), version
        if not file.is_file():
            if not allow_pickle:
                raise ModelError(
                    f"{found}: {FILES[version]} is a pickle, which may run code; pass allow_pickle=true if you trust it"
                )
            file = _download(found, FILES[version])
        elif file.name != FILES[version]:
            name = content_version(file)
        encoder = _open_checkpoint(file, number, device, allow_pickle)
    factor = 100.0 if multiply_100 else 1.0
    suffixes = [*(["x100"] if multiply_100 else []), *([precision] if precision != "float32" else [])]
    info = RewardInfo(
        name="hps",
        version="+".join([name, *suffixes]),
        licence=licence_of(path, "Apache-2.0"),
        range=(-factor, factor),
        pair_scale=encoder.logit_scale / factor,
        differentiable=True,
    )
    return DualEncoderReward(info, encoder, lambda cosine, prompts: factor * cosine, micro_batch)

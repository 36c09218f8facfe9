"""LAION's improved aesthetic predictor (sac+logos+ava1-l14-linearMSE): how much people like a picture, 1 to 10."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._aesthetic import AestheticReward, PictureEncoder, aesthetic_version, load_vision_tower
from diffpref.rewards._affine_head import folded, linear_layers
from diffpref.rewards._dual_encoder import Framing
from diffpref.rewards._hf_clip import config_of
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision

__all__ = ["ENCODER", "LAYERS", "PUBLISHED", "load_aesthetic_v2"]

PUBLISHED = Published(
    "aesthetic_v2",
    "https://github.com/christophschuhmann/improved-aesthetic-predictor",
    ("sac+logos+ava1-l14-linearMSE.pth",),
    "Apache-2.0",
    on_hub=False,
)
ENCODER = Published("aesthetic_v2", "openai/clip-vit-large-patch14", ("config.json", "*.safetensors|*.bin"), "MIT")
"""OpenAI's CLIP, on whose embeddings the head was trained; LAION's CLIP of the same size means nothing to it."""
LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers; dropouts stand between."""


def _encoder(path: str, device: str, precision: Precision, allow_pickle: bool) -> PictureEncoder:
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    config, processor = config_of("CLIPConfig", CLIPImageProcessor, path)
    tower = config.vision_config
    tower.projection_dim = config.projection_dim
    if tower.hidden_act != "quick_gelu":
        raise ModelError(
            f"{path}: a CLIP with {tower.hidden_act}; the head was trained on OpenAI's, which has quick_gelu:"
            f" {ENCODER.repository}"
        )
    model, version = load_vision_tower(
        ENCODER,
        path,
        CLIPVisionModelWithProjection,
        tower,
        device=device,
        precision=precision,
        allow_pickle=allow_pickle,
    )

    def encode(pixels: Tensor) -> Tensor:
        embeds: Tensor = model(pixel_values=pixels.to(model.device, model.dtype)).image_embeds
        return embeds

    def preprocess(pictures: list[Image.Image]) -> Tensor:
        pixels: Tensor = processor(images=pictures, return_tensors="pt").pixel_values
        return pixels

    framing = Framing(processor.crop_size["height"], tuple(processor.image_mean), tuple(processor.image_std))
    return PictureEncoder(encode, preprocess, framing, config.projection_dim, version)


@registry.register("aesthetic_v2")
def load_aesthetic_v2(
    path: str | None = None,
    *,
    encoder: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load the predictor: five linear layers without activations, folded to one, on CLIP's projected embedding.

    Scores are mostly 3.5 to 7.5; by the size of the map they cannot leave 5.24 +- 18. Prompts are not read.

    Args:
        path: the folder of ``sac+logos+ava1-l14-linearMSE.pth``, that file, another of its layout, or one of them
            converted to safetensors.
        encoder: folder or hub id of OpenAI's CLIP ViT-L/14; default: the head's folder where that holds a
            ``config.json``, else the hub's.
        device: where it runs.
        precision: of CLIP; normalisation and map are always float32.
        micro_batch: pictures that run at once.
        allow_pickle: open pickles, with weights-only loading; the head is then kept as safetensors.

    Raises:
        ModelError: a file is missing, another layout (such as the variant with activations), or another CLIP.
    """
    found = PUBLISHED.find(path)
    file = found if found.is_file() else PUBLISHED.file(found, PUBLISHED.files[0])
    tensors = read_tensors(file, allow_pickle=allow_pickle)
    if "layers.3.weight" in tensors:
        raise ModelError(
            f"{file}: the reluMSE variant, with activations between its layers; reward 'aesthetic_v2' reads {PUBLISHED}"
        )
    own = str(file.parent) if (file.parent / "config.json").is_file() else ENCODER.repository
    towers = _encoder(ENCODER.place(encoder or own), device, precision, allow_pickle)
    weight, bias = folded(linear_layers(tensors, "layers", LAYERS, towers.width, file))
    info = RewardInfo(
        name="aesthetic_v2",
        version=aesthetic_version(file, towers, precision),
        licence=PUBLISHED.licence,
        range=(1.0, 10.0),
        needs_prompt=False,
        differentiable=True,
        preprocessing=towers.framing.name,
    )
    return AestheticReward(info, towers, weight.to(device, torch.float32), bias.to(device, torch.float32), micro_batch)

"""Aesthetic Predictor V2.5: a head on SigLIP so400m. Its weights are AGPL-3.0: yours to bring, never fetched by us."""

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

__all__ = ["ENCODER", "LAYERS", "PUBLISHED", "load_aesthetic_v25"]

PUBLISHED = Published(
    "aesthetic_v25",
    "https://github.com/discus0434/aesthetic-predictor-v2-5",
    ("aesthetic_predictor_v2_5.pth",),
    "AGPL-3.0",
    on_hub=False,
)
ENCODER = Published(
    "aesthetic_v25", "google/siglip-so400m-patch14-384", ("config.json", "*.safetensors|*.bin"), "Apache-2.0"
)
LAYERS = (0, 2, 4, 6, 8)
"""Places of the linear layers; dropouts stand between."""
_RESAMPLE = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}


def _encoder(path: str, device: str, precision: Precision, allow_pickle: bool) -> PictureEncoder:
    from transformers import SiglipImageProcessor, SiglipVisionModel

    config, processor = config_of("SiglipConfig", SiglipImageProcessor, path)
    if processor.resample not in _RESAMPLE:
        raise ModelError(f"{path}: preprocessor_config.json: resample must be bicubic (3) or bilinear (2)")
    model, version = load_vision_tower(
        ENCODER,
        path,
        SiglipVisionModel,
        config.vision_config,
        device=device,
        precision=precision,
        allow_pickle=allow_pickle,
    )

    def encode(pixels: Tensor) -> Tensor:
        embeds: Tensor = model(pixel_values=pixels.to(model.device, model.dtype)).pooler_output
        return embeds

    def preprocess(pictures: list[Image.Image]) -> Tensor:
        pixels: Tensor = processor(images=pictures, return_tensors="pt").pixel_values
        return pixels

    framing = Framing(
        processor.size["height"],
        tuple(processor.image_mean),
        tuple(processor.image_std),
        interpolation=_RESAMPLE[processor.resample],
        squash=True,
    )
    return PictureEncoder(encode, preprocess, framing, config.vision_config.hidden_size, version)


@registry.register("aesthetic_v25")
def load_aesthetic_v25(
    path: str | None = None,
    *,
    encoder: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load the predictor: five linear layers without activations, folded to one, on SigLIP's pooled embedding.

    Scores are 1 to 10, of good pictures 5.5 and more. Prompts are not read. The code is ours; the weights come under
    AGPL-3.0 from their author, and only a path that you give is ever opened.

    Args:
        path: the folder of ``aesthetic_predictor_v2_5.pth``, that file, or one converted to safetensors.
        encoder: folder or hub id of SigLIP so400m at 384 pixels; default: the head's folder where that holds a
            ``config.json``, else the hub's.
        device: where it runs.
        precision: of SigLIP; normalisation and map are always float32.
        micro_batch: pictures that run at once.
        allow_pickle: open pickles, with weights-only loading; the head is then kept as safetensors.

    Raises:
        ConfigError: no path.
        ModelError: a file is missing or of another layout.
    """
    found = PUBLISHED.find(path)
    file = found if found.is_file() else PUBLISHED.file(found, PUBLISHED.files[0])
    tensors = read_tensors(file, allow_pickle=allow_pickle)
    own = str(file.parent) if (file.parent / "config.json").is_file() else ENCODER.repository
    tower = _encoder(ENCODER.place(encoder or own), device, precision, allow_pickle)
    weight, bias = folded(linear_layers(tensors, "scoring_head", LAYERS, tower.width, file))
    info = RewardInfo(
        name="aesthetic_v25",
        version=aesthetic_version(file, tower, precision),
        licence=PUBLISHED.licence,
        range=(1.0, 10.0),
        needs_prompt=False,
        differentiable=True,
        preprocessing=tower.framing.name,
    )
    return AestheticReward(info, tower, weight.to(device, torch.float32), bias.to(device, torch.float32), micro_batch)

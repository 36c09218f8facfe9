"""Stable Diffusion XL: a UNet2DConditionModel with two CLIP text encoders and micro-conditioning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import Network, TextEncoder
from diffpref.models.loading import freeze
from diffpref.models.sdxl_texts import SdxlTexts
from diffpref.models.tiny import tiny_scheduler, tiny_sdxl_texts, tiny_vae
from diffpref.schedules import DiscreteSchedule

__all__ = ["StableDiffusionXL"]


@registry.register("sdxl")
class StableDiffusionXL(SdxlTexts):
    """Conditioning: that of `SdxlTexts`.

    The refiner is an SDXL without the first encoder whose fifth and last number is an aesthetic score: as in
    Diffusion-DPO's code ``(res, res, 0, 0, 6)``, for winners and losers alike. It begins from a picture, so our sampler
    has no use for it.
    """

    name = "sdxl"
    pipeline_class = StableDiffusionXLPipeline

    @classmethod
    def tiny(cls, seed: int = 0, refiner: bool = False) -> StableDiffusionXL:
        torch.manual_seed(seed)
        network = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16 if refiner else 32,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 1),
            use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=8 * (5 if refiner else 6) + 16,
        )
        scheduler = tiny_scheduler()
        texts = [TextEncoder(*part) for part in tiny_sdxl_texts(first=not refiner)]
        return cls(
            "tiny",
            DiscreteSchedule.from_config(scheduler.config),
            dict(scheduler.config),
            freeze(network),
            freeze(tiny_vae()),
            tuple(texts),
            settings={"requires_aesthetics_score": refiner},
        )

    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        return self.ask(network, inputs, conditioning)

    def pipeline(self, network: Network | None = None) -> DiffusionPipeline:
        *first, second = self._needed("text", self.texts)
        parts = {
            "vae": self._needed("vae", self.vae),
            "text_encoder": first[0].model if first else None,
            "text_encoder_2": second.model,
            "tokenizer": first[0].tokenizer if first else None,
            "tokenizer_2": second.tokenizer,
            "unet": network or self.network,
            "scheduler": self.scheduler(),
            "force_zeros_for_empty_prompt": self.zero_unconditional,
            "add_watermarker": False,
        }
        if self.is_refiner:  # which finishes pictures that another has begun
            return StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True)
        return StableDiffusionXLPipeline(**parts)

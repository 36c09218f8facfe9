"""Stable Diffusion XL: a UNet2DConditionModel with two CLIP text encoders and micro-conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily, Network, TextEncoder
from diffpref.models.loading import freeze
from diffpref.models.tiny import tiny_scheduler, tiny_tokenizer, tiny_vae
from diffpref.schedules import DiscreteSchedule

__all__ = ["StableDiffusionXL"]

AESTHETIC_SCORE = 6.0


@registry.register("sdxl")
class StableDiffusionXL(DenoiserFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the last-but-one layers of both encoders side by side;
    ``pooled_prompt_embeds`` (N, P), the projection of the second; ``time_ids`` (N, 6), original height and width, crop
    top and left, target height and width. Diffusion-DPO's code always gives ``(res, res, 0, 0, res, res)``, and so does
    `encode_prompt`; the diffusers script gives the true ones of a pair's first image, which is `size_conditioning`.

    The refiner is an SDXL without the first encoder whose fifth and last number is an aesthetic score: as in that code
    ``(res, res, 0, 0, 6)``, for winners and losers alike. It begins from a picture, so our sampler has no use for it.
    """

    name = "sdxl"
    text_parts: ClassVar = {
        "text_encoder": (CLIPTokenizer, CLIPTextModel),
        "text_encoder_2": (CLIPTokenizer, CLIPTextModelWithProjection),
    }
    added_embedding = "text_time"
    size_tensors = frozenset({"time_ids"})
    pipeline_class = StableDiffusionXLPipeline
    default_resolution = 1024

    @classmethod
    def tiny(cls, seed: int = 0, refiner: bool = False) -> StableDiffusionXL:
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
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
        texts = [TextEncoder(tokenizer, freeze(CLIPTextModelWithProjection(config)))]
        if not refiner:
            texts.insert(0, TextEncoder(tokenizer, freeze(CLIPTextModel(config))))
        return cls(
            "tiny",
            DiscreteSchedule.from_config(scheduler.config),
            dict(scheduler.config),
            freeze(network),
            freeze(tiny_vae()),
            tuple(texts),
            settings={"requires_aesthetics_score": refiner},
        )

    @property
    def is_refiner(self) -> bool:
        """Whether the checkpoint is conditioned on an aesthetic score instead of a target size."""
        return bool(self.settings.get("requires_aesthetics_score", False))

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        encoders = self._needed("text", self.texts)
        outputs = [e.model(e.tokens(prompts), output_hidden_states=True) for e in encoders]
        embeds = torch.cat([o.hidden_states[-2] for o in outputs], dim=-1).float()
        uncropped = embeds.new_tensor([[resolution, resolution, 0, 0]]).repeat(len(prompts), 1)
        return Conditioning(
            {
                "prompt_embeds": embeds,
                "pooled_prompt_embeds": outputs[-1].text_embeds.float(),
                **self.size_conditioning(uncropped, resolution),
            }
        )

    def size_conditioning(self, sizes: Tensor, resolution: int) -> dict[str, Tensor]:
        last = [AESTHETIC_SCORE] if self.is_refiner else [resolution, resolution]
        return {"time_ids": torch.cat([sizes.float(), sizes.new_tensor([last]).float().repeat(len(sizes), 1)], dim=1)}

    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        told = conditioning.tensors
        noisy, embeds, pooled = self._as_network(
            network, inputs["noisy"], told["prompt_embeds"], told["pooled_prompt_embeds"]
        )
        # sizes stay float32: in half precision 1023 pixels are 1024
        added = {"text_embeds": pooled, "time_ids": told["time_ids"]}
        return network(noisy, inputs["timesteps"], embeds, added_cond_kwargs=added).sample

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

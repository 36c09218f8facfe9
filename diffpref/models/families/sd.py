"""Stable Diffusion 1.x and 2.x: a UNet2DConditionModel with one CLIP text encoder, epsilon or v prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily, Network, TextEncoder
from diffpref.models.loading import freeze
from diffpref.models.tiny import tiny_clip_text, tiny_scheduler, tiny_vae
from diffpref.schedules import DiscreteSchedule

__all__ = ["StableDiffusion"]


@registry.register("sd")
class StableDiffusion(DenoiserFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the text encoder's last hidden state after its final layer norm."""

    name = "sd"
    text_parts: ClassVar = {"text_encoder": (CLIPTokenizer, CLIPTextModel)}
    pipeline_class = StableDiffusionPipeline
    default_resolution = 512

    @classmethod
    def tiny(cls, seed: int = 0, prediction_type: str = "epsilon") -> StableDiffusion:
        torch.manual_seed(seed)
        encoder = TextEncoder(*tiny_clip_text())
        network = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        scheduler = tiny_scheduler(prediction_type)
        schedule = DiscreteSchedule.from_config(scheduler.config)
        return cls("tiny", schedule, dict(scheduler.config), freeze(network), freeze(tiny_vae()), (encoder,))

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        (encoder,) = self._needed("text", self.texts)
        return Conditioning({"prompt_embeds": encoder.model(encoder.tokens(prompts)).last_hidden_state.float()})

    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        noisy, embeds = self._as_network(network, inputs["noisy"], conditioning.tensors["prompt_embeds"])
        return network(noisy, inputs["timesteps"], embeds).sample

    def pipeline(self, network: Network | None = None) -> StableDiffusionPipeline:
        (encoder,) = self._needed("text", self.texts)
        return StableDiffusionPipeline(
            vae=self._needed("vae", self.vae),
            text_encoder=encoder.model,
            tokenizer=encoder.tokenizer,
            unet=network or self.network,
            scheduler=self.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

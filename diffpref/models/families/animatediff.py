"""AnimateDiff: Stable Diffusion 1.5 with motion modules between its layers, a UNetMotionModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import AnimateDiffPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import Network, TextEncoder
from diffpref.models.motion import MotionFamily
from diffpref.models.tiny import tiny_clip_text

__all__ = ["AnimateDiff"]


@registry.register("animatediff")
class AnimateDiff(MotionFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the text encoder's last hidden state, which is told to each frame."""

    name = "animatediff"
    text_parts: ClassVar = {"text_encoder": (CLIPTokenizer, CLIPTextModel)}
    pipeline_class = AnimateDiffPipeline
    default_resolution = 512

    @classmethod
    def tiny(cls, seed: int = 0) -> AnimateDiff:
        torch.manual_seed(seed)
        encoder = TextEncoder(*tiny_clip_text())
        network = cls.tiny_network(
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        )
        return cls.tiny_of(network, encoder)

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        (encoder,) = self._needed("text", self.texts)
        return Conditioning({"prompt_embeds": encoder.model(encoder.tokens(prompts)).last_hidden_state.float()})

    def denoise(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        noisy, embeds = self._as_network(network, inputs["noisy"], conditioning.tensors["prompt_embeds"])
        each = embeds.repeat_interleave(noisy.shape[2], dim=0)  # the network folds frames into its rows
        return network(noisy, inputs["timesteps"], each).sample

    def pipeline(self, network: Network | None = None) -> AnimateDiffPipeline:
        (encoder,) = self._needed("text", self.texts)
        return AnimateDiffPipeline(
            vae=self._needed("vae", self.vae),
            text_encoder=encoder.model,
            tokenizer=encoder.tokenizer,
            unet=network or self.network,
            motion_adapter=None,
            scheduler=self.scheduler(),
        )

"""AnimateDiff on Stable Diffusion XL: its image model with motion modules between its layers, a UNetMotionModel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AnimateDiffSDXLPipeline
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import Network, TextEncoder
from diffpref.models.motion import MotionFamily
from diffpref.models.sdxl_texts import SdxlTexts
from diffpref.models.tiny import tiny_sdxl_texts

__all__ = ["AnimateDiffXL"]


@registry.register("animatediff_sdxl")
class AnimateDiffXL(SdxlTexts, MotionFamily):
    """Conditioning: that of `SdxlTexts`; each frame is told the prompt, the clip its pooled form and its sizes."""

    name = "animatediff_sdxl"
    pipeline_class = AnimateDiffSDXLPipeline

    @classmethod
    def tiny(cls, seed: int = 0) -> AnimateDiffXL:
        torch.manual_seed(seed)
        network = cls.tiny_network(
            cross_attention_dim=32,
            transformer_layers_per_block=(1, 1),
            use_linear_projection=True,
            down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
            up_block_types=("CrossAttnUpBlockMotion", "UpBlockMotion"),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=8 * 6 + 16,
        )
        return cls.tiny_of(network, *(TextEncoder(*part) for part in tiny_sdxl_texts()))

    def denoise(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        return self.ask(network, inputs, conditioning, num_frames=inputs["noisy"].shape[2])

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        # diffusers wants to be told that the motion modules are in the network already
        return super().usage(f"{load}, motion_adapter=None", folder)

    def pipeline(self, network: Network | None = None) -> AnimateDiffSDXLPipeline:
        first, second = self._needed("text", self.texts)
        return AnimateDiffSDXLPipeline(
            vae=self._needed("vae", self.vae),
            text_encoder=first.model,
            tokenizer=first.tokenizer,
            text_encoder_2=second.model,
            tokenizer_2=second.tokenizer,
            unet=network or self.network,
            motion_adapter=None,
            scheduler=self.scheduler(),
            force_zeros_for_empty_prompt=self.zero_unconditional,
        )

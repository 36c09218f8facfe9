"""Text to video with a UNet3DConditionModel, as ModelScope's: frames through an image VAE, one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MethodType
from typing import Any, ClassVar

import torch
from diffusers import TextToVideoSDPipeline, UNet3DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import Network, TextEncoder
from diffpref.models.gates import recompute
from diffpref.models.leaving import PeftLeaving
from diffpref.models.tiny import tiny_clip_text
from diffpref.models.videos import VideoFamily

__all__ = ["UNet3D"]


@registry.register("unet3d")
class UNet3D(PeftLeaving, VideoFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the text encoder's last hidden state; the network tells every frame.

    diffusers gives this network neither LoRAs nor recomputation. A LoRA is therefore in PEFT's own files, which
    ``PeftModel.from_pretrained`` reads, and whole blocks are recomputed.
    """

    name = "unet3d"
    network_class = UNet3DConditionModel
    text_parts: ClassVar = {"text_encoder": (CLIPTokenizer, CLIPTextModel)}
    pipeline_class = TextToVideoSDPipeline
    default_resolution = 256

    @classmethod
    def tiny(cls, seed: int = 0) -> UNet3D:
        torch.manual_seed(seed)
        encoder = TextEncoder(*tiny_clip_text())
        network = UNet3DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        )
        return cls.tiny_of(network, encoder)

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        (encoder,) = self._needed("text", self.texts)
        return Conditioning({"prompt_embeds": encoder.model(encoder.tokens(prompts)).last_hidden_state.float()})

    def denoise(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        noisy, embeds = self._as_network(network, inputs["noisy"], conditioning.tensors["prompt_embeds"])
        return network(noisy, inputs["timesteps"], embeds).sample

    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        for number, block in enumerate(self.blocks(network)):
            block.__dict__.pop("forward", None)
            if level and not (level == "every_second" and number % 2):
                block.forward = MethodType(_recomputed, block)

    def pipeline(self, network: Network | None = None) -> TextToVideoSDPipeline:
        (encoder,) = self._needed("text", self.texts)
        return TextToVideoSDPipeline(
            vae=self._needed("vae", self.vae),
            text_encoder=encoder.model,
            tokenizer=encoder.tokenizer,
            unet=network or self.network,
            scheduler=self.scheduler(),
        )


def _recomputed(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    """The forward of a block whose activations are forgotten, where a gradient is wanted."""
    plain = partial(type(block).forward, block)
    return recompute(plain, *inputs, **named) if torch.is_grad_enabled() else plain(*inputs, **named)

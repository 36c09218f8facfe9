"""AnimateDiff: Stable Diffusion 1.5 with motion modules between its layers, a UNetMotionModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AnimateDiffPipeline, UNetMotionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ModelError
from diffpref.models import registry
from diffpref.models.family import Network, TextEncoder
from diffpref.models.loading import freeze
from diffpref.models.tiny import tiny_clip_text, tiny_scheduler, tiny_vae
from diffpref.models.videos import VideoFamily
from diffpref.schedules import DiscreteSchedule

__all__ = ["AnimateDiff"]


@registry.register("animatediff")
class AnimateDiff(VideoFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the text encoder's last hidden state, which is told to each frame.

    The checkpoint is a saved pipeline: a motion adapter is put into an image model once, by
    ``AnimateDiffPipeline.from_pretrained(image_model, motion_adapter=adapter).save_pretrained(folder)``. A LoRA adapts
    the attention of the image model and of the motion modules.
    """

    name = "animatediff"
    network_class = UNetMotionModel
    text_parts: ClassVar = {"text_encoder": (CLIPTokenizer, CLIPTextModel)}
    pipeline_class = AnimateDiffPipeline
    default_resolution = 512

    @classmethod
    def tiny(cls, seed: int = 0) -> AnimateDiff:
        torch.manual_seed(seed)
        encoder = TextEncoder(*tiny_clip_text())
        network = UNetMotionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            num_attention_heads=2,
            motion_num_attention_heads=2,
            motion_max_seq_length=8,
            use_motion_mid_block=False,
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        )
        scheduler = tiny_scheduler()
        schedule = DiscreteSchedule.from_config(scheduler.config)
        return cls(
            "tiny",
            schedule,
            dict(scheduler.config),
            freeze(network),
            freeze(tiny_vae()),
            (encoder,),
            config=dict(network.config),
            num_frames=3,
        )

    @classmethod
    def check(cls, path: str, config: Mapping[str, Any]) -> None:
        if config.get("_class_name") == "UNet2DConditionModel":
            raise ModelError(
                f"model.family: 'animatediff' does not fit {path}, an image model without motion; put a motion adapter"
                " into it with diffusers' AnimateDiffPipeline.from_pretrained(..., motion_adapter=adapter), and save it"
            )
        super().check(path, config)

    @property
    def max_frames(self) -> int:
        return int(self.config["motion_max_seq_length"])

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

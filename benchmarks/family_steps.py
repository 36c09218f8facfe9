"""Diffusion-DPO training steps of SD3 and of families of videos, at real or toy size, for `gpu_families.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffusers import SD3Transformer2DModel, UNet3DConditionModel, UNetMotionModel
from dpo_step import DpoStep
from sdxl_step import SDXL, sdxl_texts
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models.families.animatediff_sdxl import AnimateDiffXL
from diffpref.models.families.sd3 import StableDiffusion3
from diffpref.models.families.unet3d import UNet3D
from diffpref.models.family import DenoiserFamily
from diffpref.models.tiny import tiny_scheduler
from diffpref.schedules import DiscreteSchedule, FlowSchedule, Schedule

__all__ = ["CASES", "Case", "FamilyStep"]

Told = Callable[[Mapping[str, Any], int, tuple[int, ...], Callable[..., Tensor]], Conditioning]


@dataclass(frozen=True)
class Case:
    """A family at its real size and at toy size.

    Args:
        family: its class.
        network: the denoiser's class.
        config: of the denoiser, where it differs from the class's defaults.
        toy: the same for tests.
        latents: (C, H, W) or (C, F, H, W).
        toy_latents: the same for tests.
        schedule: the noise schedule.
        told: rows of conditioning of a denoiser's config, a number of pairs and the shape of latents.
    """

    family: type[DenoiserFamily]
    network: type[Any]
    config: Mapping[str, Any]
    toy: Mapping[str, Any]
    latents: tuple[int, ...]
    toy_latents: tuple[int, ...]
    schedule: Callable[[], Schedule]
    told: Told


def _chain() -> Schedule:
    return DiscreteSchedule.from_config(tiny_scheduler().config)


def _sd3_texts(
    config: Mapping[str, Any], pairs: int, latents: tuple[int, ...], draw: Callable[..., Tensor]
) -> Conditioning:
    """77 tokens of CLIP and 256 of T5."""
    embeds = draw(pairs, 77 + 256, config["joint_attention_dim"])
    return Conditioning({"prompt_embeds": embeds, "pooled_prompt_embeds": draw(pairs, config["pooled_projection_dim"])})


def _clip_text(
    config: Mapping[str, Any], pairs: int, latents: tuple[int, ...], draw: Callable[..., Tensor]
) -> Conditioning:
    return Conditioning({"prompt_embeds": draw(pairs, 77, config["cross_attention_dim"])})


def _sdxl(config: Mapping[str, Any], pairs: int, latents: tuple[int, ...], draw: Callable[..., Tensor]) -> Conditioning:
    return sdxl_texts(dict(config), pairs, latents[-1], draw)


# transformer/config.json of stabilityai/stable-diffusion-3-medium-diffusers
SD3: dict[str, Any] = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
SD3_TOY = SD3 | {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "caption_projection_dim": 16,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 8,
    "pos_embed_max_size": 8,
}
# unet/config.json of damo-vilab/text-to-video-ms-1.7b: the class's own numbers
UNET3D: dict[str, Any] = {"sample_size": 32, "cross_attention_dim": 1024, "attention_head_dim": 64}
UNET3D_TOY = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}
# SDXL with the motion modules of guoyww/animatediff-motion-adapter-sdxl-beta
MOTION: dict[str, Any] = {
    **{name: value for name, value in SDXL.items() if name != "attention_head_dim"},
    "num_attention_heads": SDXL["attention_head_dim"],
    "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
    "up_block_types": ("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
    "motion_num_attention_heads": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": False,
}
MOTION_TOY = MOTION | {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "norm_num_groups": 4,
    "transformer_layers_per_block": (1, 1, 1),
    "num_attention_heads": (1, 2, 2),
    "motion_num_attention_heads": 2,
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}

CASES: dict[str, Case] = {
    "sd3": Case(
        StableDiffusion3,
        SD3Transformer2DModel,
        SD3,
        SD3_TOY,
        (16, 128, 128),
        (4, 8, 8),
        partial(FlowSchedule, shift=3.0),
        _sd3_texts,
    ),
    "unet3d": Case(UNet3D, UNet3DConditionModel, UNET3D, UNET3D_TOY, (4, 16, 32, 32), (4, 3, 8, 8), _chain, _clip_text),
    "animatediff_sdxl": Case(
        AnimateDiffXL, UNetMotionModel, MOTION, MOTION_TOY, (4, 16, 128, 128), (4, 3, 8, 8), _chain, _sdxl
    ),
}


class FamilyStep(DpoStep):
    """A training step of one of `CASES`.

    Args:
        case: which.
        toy: whether at toy size.
        device: as for `DpoStep`, like all others.
        precision: of the frozen weights and of autocast.
        options: of `DpoStep`.
    """

    def __init__(self, case: Case, toy: bool, device: str, precision: str, **options: Any) -> None:
        self.case, self.config = case, case.toy if toy else case.config
        self._latents = case.toy_latents if toy else case.latents

        def wrap(network: Any) -> DenoiserFamily:
            return case.family("random", case.schedule(), {}, network, config=dict(network.config))

        super().__init__(partial(case.network, **self.config), wrap, device, precision, **options)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self._latents

    def told(self, pairs: int, draw: Callable[..., Tensor]) -> Conditioning:
        return self.case.told(self.config, pairs, self._latents, draw)

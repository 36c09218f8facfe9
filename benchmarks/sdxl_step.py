"""A Diffusion-DPO training step of SDXL with random weights, at real or toy size, for `gpu_sdxl.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import dpo_step
from diffusers import UNet2DConditionModel
from dpo_step import DpoStep
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models.families.sdxl import StableDiffusionXL
from diffpref.models.tiny import tiny_scheduler
from diffpref.schedules import DiscreteSchedule

__all__ = ["SDXL", "TOY", "Step", "count_tflop", "sdxl_texts"]

# unet/config.json of stabilityai/stable-diffusion-xl-base-1.0, where it differs from the class's defaults
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 1280,
}
TOY = SDXL | {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "norm_num_groups": 4,
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}


class Step(DpoStep):
    """A training step of SDXL with random weights.

    Args:
        config: of the denoiser.
        device: as for `DpoStep`, like all others.
        precision: of the frozen weights and of autocast.
        options: of `DpoStep`.
    """

    def __init__(self, config: dict[str, Any], device: str, precision: str, **options: Any) -> None:
        self.config, schedule = config, DiscreteSchedule.from_config(tiny_scheduler().config)
        wrap = partial(StableDiffusionXL, "random", schedule, {})
        super().__init__(partial(UNet2DConditionModel, **config), wrap, device, precision, **options)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        side = self.config["sample_size"]
        return 4, side, side

    def told(self, pairs: int, draw: Callable[..., Tensor]) -> Conditioning:
        return sdxl_texts(self.config, pairs, self.latent_shape[-1], draw)


def sdxl_texts(config: dict[str, Any], pairs: int, side: int, draw: Callable[..., Tensor]) -> Conditioning:
    """Return rows of what an SDXL of a config is told of latents of some side."""
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    vectors, pixels = draw(pairs, pooled), 8.0 * side
    return Conditioning(
        {
            "prompt_embeds": draw(pairs, 77, config["cross_attention_dim"]),
            "pooled_prompt_embeds": vectors,
            "time_ids": vectors.new_tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]] * pairs),
        }
    )


def count_tflop(config: dict[str, Any], rank: int, checkpointing: bool) -> float:
    """Return the TFLOP of one pair, by torch's counter on tensors without storage."""
    return dpo_step.count_tflop(Step(config, "meta", "bf16", rank=rank), checkpointing)

"""A Diffusion-DPO training step of SDXL with random weights, at real or toy size, for `gpu_sdxl.py`.

It imports torch, diffusers and peft, and of diffpref only what needs neither pydantic nor tyro.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.flop_counter import FlopCounterMode

from diffpref.core.contracts import Conditioning, RoleSpec, Rows
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods._forward import forward_rows
from diffpref.models.adapters.lora import Lora
from diffpref.models.attention import set_attention
from diffpref.models.families.sdxl import StableDiffusionXL
from diffpref.models.roles import build_roles
from diffpref.models.tiny import tiny_scheduler
from diffpref.schedules import DiscreteSchedule

__all__ = ["SDXL", "TOY", "Step", "count_tflop"]

BETA = 5000.0
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
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


class Step:
    """A training step of SDXL with random weights.

    Args:
        config: of the denoiser.
        device: where its weights are made; ``meta`` makes none, and counts only.
        precision: of the frozen weights and of autocast: ``bf16``, ``fp16`` or ``fp32``.
        rank: of the LoRA.
        attention: ``native`` or ``xformers``, which falls back to native; ``self.attention`` is the one in force.
        compiled: compile transformer and residual blocks one by one (regional compilation).
        channels_last: lay images out with channels innermost.
    """

    def __init__(
        self,
        config: dict[str, Any],
        device: str,
        precision: str,
        *,
        rank: int,
        attention: str = "native",
        compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.config, self.device, dtype = config, torch.device(device), DTYPES[precision]
        with self.device:
            network = UNet2DConditionModel(**config)
        network = network.to(dtype).requires_grad_(False).eval()
        schedule = DiscreteSchedule.from_config(tiny_scheduler().config)
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.family, adapter = StableDiffusionXL("random", schedule, {}, network), Lora(rank=rank)
        self.attention = set_attention(network, attention)
        self.trained = adapter.install(self.family, Random(0))["adapter"]
        self.num_trained = sum(parameter.numel() for parameter in self.trained)
        if compiled:
            compile_blocks(network)
        mixed = precision != "fp32" and device != "meta"
        autocast = partial(torch.autocast, self.device.type, dtype) if mixed else nullcontext
        self.roles = build_roles({"reference": RoleSpec("base")}, self.family, network, adapter, autocast)
        self.network, self.likelihood = network, DenoisingLikelihood(schedule)
        self.precision = precision

    def start(self, pairs: int, checkpointing: bool) -> None:
        """Go back to the untrained adapter and make a batch."""
        if checkpointing:
            self.network.enable_gradient_checkpointing()
        else:
            self.network.disable_gradient_checkpointing()
        for name, parameter in self.network.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        self.optimizer.zero_grad(set_to_none=True)  # of a setting that did not fit
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        side, width = self.config["sample_size"], self.config["addition_time_embed_dim"]
        pooled, pixels = self.config["projection_class_embeddings_input_dim"] - 6 * width, 8.0 * side
        draw = partial(torch.randn, device=self.device)
        self.latents = draw(3, pairs, 4, side, side)  # chosen, rejected, noise
        self.timesteps = torch.arange(1, pairs + 1, device=self.device) * 1000 // (pairs + 1)
        self.conditioning = Conditioning(
            {
                "prompt_embeds": draw(pairs, 77, self.config["cross_attention_dim"]),
                "pooled_prompt_embeds": draw(pairs, pooled),
                "time_ids": torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]] * pairs, device=self.device),
            }
        )

    def rows(self) -> Rows:
        """Noise the pairs as `diffpref.methods.diffusion_dpo` does: one noise and one timestep for both images."""
        chosen, rejected, noise = self.latents
        groups = {"chosen": (chosen, noise, noise), "rejected": (rejected, noise, noise)}
        return forward_rows(self.family.schedule, groups, self.timesteps, self.conditioning, {})

    def loss(self) -> tuple[Tensor, Tensor]:
        """Return the loss and the (B,) margins.

        The formula is `diffpref.objectives.dpo`, whose options need pydantic; a test compares the two.
        """
        rows = self.rows()
        outputs = {name: self.roles[name](rows, grad=name == "policy") for name in ("reference", "policy")}
        ratios = self.likelihood(("chosen_log_ratio", "rejected_log_ratio"), outputs, rows)
        margins = BETA * (ratios["chosen_log_ratio"] - ratios["rejected_log_ratio"])
        return -logsigmoid(margins).mean(), margins.detach()

    def __call__(self) -> Tensor:
        """Update once; return the margins before it."""
        loss, margins = self.loss()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return margins


def compile_blocks(network: nn.Module) -> None:
    """Compile every transformer and residual block in place; blocks of one shape share their code."""
    # A block's code is compiled for each shape, with and without adapter and gradient; beyond the limit of 8 versions
    # torch would go back to eager without a word.
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.accumulated_recompile_limit = 1024
    for module in network.modules():
        if type(module).__name__ in ("BasicTransformerBlock", "ResnetBlock2D"):
            module.compile(dynamic=False)


def count_tflop(config: dict[str, Any], rank: int, checkpointing: bool) -> float:
    """Return the TFLOP of one pair, by torch's counter on tensors without storage."""
    step = Step(config, "meta", "bf16", rank=rank)
    step.start(1, checkpointing)
    with FlopCounterMode(display=False) as counter:
        step.loss()[0].backward()
    return counter.get_total_flops() / 1e12

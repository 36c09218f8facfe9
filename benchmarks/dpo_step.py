"""A Diffusion-DPO training step of a denoiser with random weights, for the benchmarks that need an accelerator.

It imports torch, diffusers and peft, and of diffpref only what needs neither pydantic nor tyro.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.flop_counter import FlopCounterMode

from diffpref.core.contracts import Conditioning, Role, RoleSpec, Rows
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods._forward import forward_rows
from diffpref.models.adapters.lora import Lora
from diffpref.models.attention import set_attention
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import build_roles

__all__ = ["DpoStep", "count_tflop"]

BETA = 5000.0
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class DpoStep(ABC):
    """A training step of a denoiser with random weights and a LoRA.

    Args:
        make: the denoiser.
        wrap: its family.
        device: where its weights are made; ``meta`` makes none, and counts only.
        precision: of the frozen weights and of autocast: ``bf16``, ``fp16`` or ``fp32``.
        rank: of the LoRA.
        attention: ``native`` or ``xformers``, which falls back to native; ``self.attention`` is the one in force.
        compiled: compile transformer and residual blocks one by one (regional compilation).
        channels_last: lay images out with channels innermost.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        wrap: Callable[[Any], DenoiserFamily],
        device: str,
        precision: str,
        *,
        rank: int,
        attention: str = "native",
        compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.device, dtype = torch.device(device), DTYPES[precision]
        with self.device:
            network = make()
        network = network.to(dtype).requires_grad_(False).eval()
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.family, self.adapter = wrap(network), Lora(rank=rank)
        self.attention = set_attention(network, attention)
        self.trained = self.adapter.install(self.family, Random(0))["adapter"]
        self.num_trained = sum(parameter.numel() for parameter in self.trained)
        if compiled:
            compile_blocks(network)
        mixed = precision != "fp32" and device != "meta"
        self.autocast = partial(torch.autocast, self.device.type, dtype) if mixed else nullcontext
        self.network, schedule, frames = network, self.family.schedule, self.family.unit_dims
        self.likelihood = DenoisingLikelihood(schedule, unit_dims=frames)
        self.precision = precision
        self.roles = self.build({"reference": RoleSpec("base")})

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (C, F, H, W) of clips."""

    @abstractmethod
    def told(self, pairs: int, draw: Callable[..., Tensor]) -> Conditioning:
        """Return a row for each pair; ``draw`` makes normal numbers of a shape."""

    def build(self, roles: Mapping[str, RoleSpec]) -> dict[str, Role]:
        """Return the policy and these roles."""
        return build_roles(roles, self.family, self.network, self.adapter, self.autocast)

    def start(self, pairs: int, checkpointing: bool) -> None:
        """Go back to the untrained adapter and make a batch."""
        self.family.set_checkpointing(self.network, checkpointing)
        for name, parameter in self.network.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        self.optimizer.zero_grad(set_to_none=True)  # of a setting that did not fit
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        draw = partial(torch.randn, device=self.device)
        self.latents = draw(3, pairs, *self.latent_shape)  # chosen, rejected, noise
        places = torch.arange(1, pairs + 1, dtype=torch.float64) / (pairs + 1)
        self.timesteps = self.family.schedule.draw(places).to(self.device)
        self.conditioning = self.told(pairs, draw)

    def rows(self) -> Rows:
        """Noise the pairs as `diffpref.methods.diffusion_dpo` does: one noise and one timestep for both samples."""
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
        self.update(loss)
        return margins

    def update(self, loss: Tensor) -> None:
        """Backward, clipping and the optimiser's step."""
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def compile_blocks(network: nn.Module) -> None:
    """Compile every transformer and residual block in place; blocks of one shape share their code."""
    # A block's code is compiled for each shape, with and without adapter and gradient; beyond the limit of 8 versions
    # torch would go back to eager without a word.
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.accumulated_recompile_limit = 1024
    for module in network.modules():
        if type(module).__name__ in ("BasicTransformerBlock", "ResnetBlock2D"):
            module.compile(dynamic=False)


def count_tflop(step: DpoStep, checkpointing: bool) -> float:
    """Return the TFLOP of one pair, by torch's counter, of a step on the device ``meta``."""
    step.start(1, checkpointing)
    with FlopCounterMode(display=False) as counter:
        step.loss()[0].backward()
    return counter.get_total_flops() / 1e12

"""Joining the processes that train together, and scaling the loss where numbers are short."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from diffpref.config import Recipe
from diffpref.core.errors import ConfigError
from diffpref.models.precision import DTYPES

__all__ = ["launch", "launched_precision", "loss_scaler"]

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def launch() -> Accelerator:
    """Return the accelerator of this process.

    Number formats are not left to it: its setting is one for the whole process, and a notebook may train twice.

    Raises:
        ConfigError: accelerate was set up for something that the loop does not do.
    """
    plugin = GradientAccumulationPlugin(num_steps=1)  # else the launcher's environment would scale the loss
    try:
        accelerator = Accelerator(
            mixed_precision="no", cpu=not torch.cuda.is_available(), gradient_accumulation_plugin=plugin
        )
    except ValueError as error:
        raise ConfigError(f"accelerate is set up otherwise in this process: {error}") from error
    if accelerator.distributed_type not in SUPPORTED:
        kind = accelerator.distributed_type.value
        raise ConfigError(f"training under accelerate's {kind} is not supported yet; use DDP (--multi_gpu)")
    return accelerator


def launched_precision(recipe: Recipe, launcher: str | None) -> Recipe:
    """Return the recipe with the precision that ``accelerate launch --mixed_precision`` asked for.

    Args:
        recipe: whose ``model.precision`` of fp32, the default, gives way.
        launcher: the launcher's word, as it stands in ``ACCELERATE_MIXED_PRECISION``; None or "no": it asked nothing.

    Raises:
        ConfigError: launcher and recipe ask for two different half precisions, or the launcher for another format.
    """
    given = recipe.model.precision
    if launcher in (None, "", "no", given):
        return recipe
    if launcher not in DTYPES or given != "fp32":
        raise ConfigError(
            f"model.precision: is {given}, but accelerate was launched with --mixed_precision {launcher}; expected is"
            " bf16, fp16 or no, and the same in both places"
        )
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"precision": launcher})})


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return what scales the loss before the backward pass: something under fp16, whose small gradients are zero."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

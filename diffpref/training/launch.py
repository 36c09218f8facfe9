"""Joining the processes that train together, how the network is spread over them, and scaling the loss."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, GradientAccumulationPlugin
from torch import Tensor

from diffpref.config import Recipe
from diffpref.core.errors import ConfigError
from diffpref.models.family import Network
from diffpref.models.precision import DTYPES
from diffpref.models.sharding import is_sharded, without_gradient_sync

__all__ = [
    "keep_gradients_local",
    "largest_number",
    "largest_of_all",
    "launch",
    "launched_precision",
    "loss_scaler",
    "sharding_options",
]

logger = logging.getLogger(__name__)

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def launch() -> Accelerator:
    """Return the accelerator of this process.

    Number formats are not left to it: its setting is one for the whole process, and a notebook may train twice.

    Raises:
        ConfigError: accelerate was set up for something that the loop does not do.
    """
    _read_environment()
    plugin = GradientAccumulationPlugin(num_steps=1)  # else the launcher's environment would scale the loss
    try:
        accelerator = Accelerator(
            mixed_precision="no", cpu=not torch.cuda.is_available(), gradient_accumulation_plugin=plugin
        )
    except ValueError as error:
        raise ConfigError(f"accelerate is set up otherwise in this process: {error}") from error
    if accelerator.distributed_type not in SUPPORTED and not accelerator.is_fsdp2:
        kind = accelerator.distributed_type.value
        raise ConfigError(f"training under accelerate's {kind} is not supported; use DDP (--multi_gpu) or FSDP2")
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


def _read_environment() -> None:
    """Refuse by what the launcher wrote into the environment, before accelerate acts on it."""
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "training under DeepSpeed is not supported; launch with DDP (--multi_gpu), or with FSDP2 (--use_fsdp"
            " --fsdp_version 2), which shards as ZeRO-3 does"
        )
    if _asked("ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError("training under Megatron-LM is not supported; use DDP (--multi_gpu) or FSDP2")
    if not _asked("ACCELERATE_USE_FSDP"):
        return
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"training under FSDP {version} is not supported; add --fsdp_version 2")
    if _asked("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ConfigError("fsdp_activation_checkpointing: not used here; set model.gradient_checkpointing instead")
    # else transformers would load weights in the first process only, and trust accelerate to send them to the others
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def sharding_options(accelerator: Accelerator, recipe: Recipe) -> dict[str, Any] | None:
    """Return how weights are sharded (options of ``fully_shard``), or None where every process holds all of them.

    accelerate's settings are kept, but for the units: those are the family's blocks. On CPU accelerate knows no FSDP,
    so that there its launcher's environment decides.

    Raises:
        ConfigError: the recipe asks for something that does not go with sharding.
    """
    if not (accelerator.is_fsdp2 or (accelerator.use_distributed and _asked("ACCELERATE_USE_FSDP"))):
        return None
    if recipe.model.compile == "full":
        raise ConfigError("model.compile: full does not go with FSDP2, which gathers block by block; use regional")
    if recipe.optim.kind == "adamw8bit":
        raise ConfigError("optim.kind: adamw8bit does not go with FSDP2, whose moments are sharded; use adamw")
    plugin = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else FullyShardedDataParallelPlugin()
    if plugin.auto_wrap_policy is not None:
        logger.warning("fsdp_auto_wrap_policy: not used; the model family names the units to shard")
    options: dict[str, Any] = {"reshard_after_forward": plugin.reshard_after_forward}
    if plugin.cpu_offload:
        options["offload_policy"] = plugin.cpu_offload
    if plugin.mixed_precision_policy is not None:
        logger.warning("fsdp mixed precision: not used; model.precision decides")
    if (mesh := getattr(accelerator, "torch_device_mesh", None)) is not None:
        options["mesh"] = mesh[tuple(accelerator.parallelism_config.fsdp_dim_names)]
    return options


def keep_gradients_local(accelerator: Accelerator, network: Network) -> AbstractContextManager[Any]:
    """Return the context for all but the last micro-batch of an update: gradients add up in each process."""
    return without_gradient_sync(network) if is_sharded(network) else accelerator.no_sync(network)


def largest_of_all(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Return the largest of each element over all processes."""
    gathered: Tensor = accelerator.gather(values.unsqueeze(0))
    return gathered.amax(dim=0)


def largest_number(accelerator: Accelerator, number: int) -> int:
    """Return the largest of a whole number over all processes."""
    if accelerator.num_processes == 1:
        return number
    return int(largest_of_all(accelerator, torch.tensor([number], device=accelerator.device)).item())


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return what scales the loss before the backward pass: something under fp16, whose small gradients are zero."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

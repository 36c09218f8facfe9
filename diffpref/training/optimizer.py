"""The optimiser that a recipe names, over the parameter groups of an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from diffpref.config import Optim
from diffpref.core.errors import ConfigError

__all__ = ["make_optimizer"]

FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Devices for which torch has AdamW as one kernel over many tensors."""


def make_optimizer(
    optim: Optim, groups: Mapping[str, Sequence[nn.Parameter]], device: torch.device
) -> torch.optim.Optimizer:
    """Return an optimiser with one parameter group for each given one.

    Args:
        optim: ``adamw`` is torch's, as one fused kernel where ``fused`` is set and the device has one: the same update
            to rounding, several times faster where the tensors are many and small. ``adamw8bit`` is bitsandbytes',
            which keeps the moments of tensors of 4096 numbers and more in 8 bits, in blocks with their own scale.
        groups: name -> parameters.
        device: of the parameters.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    given = [{"params": list(parameters)} for parameters in groups.values()]
    lr, eps, decay, betas = optim.learning_rate, optim.eps, optim.weight_decay, optim.betas
    if optim.kind == "adamw8bit":
        return _eight_bit()(given, lr=lr, betas=betas, eps=eps, weight_decay=decay)
    fused = optim.fused and device.type in FUSED
    return torch.optim.AdamW(given, lr=lr, betas=betas, eps=eps, weight_decay=decay, fused=fused)


def _eight_bit() -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError("optim.kind: adamw8bit needs bitsandbytes; pip install 'diffpref[bnb]'") from error
    return AdamW8bit

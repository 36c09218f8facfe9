"""Compiling a denoiser: block by block (regional), or whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from diffpref.core.errors import ConfigError, suggest
from diffpref.models.base import Network

__all__ = ["compile_network"]

VARIANTS = 64


def compile_network(
    network: Network, blocks: Sequence[nn.Module], mode: Literal["regional", "full"], backend: str = "inductor"
) -> None:
    """Compile a network in place; names of weights stay, and compilation itself waits for the first call.

    Which adapter is on and whether gradients flow is built in: each of these is compiled the first time it is met.

    Args:
        network: before it is wrapped or sharded, and after copies were taken.
        blocks: its repeated blocks.
        mode: ``regional`` compiles each block: soon ready, and it goes with sharding; ``full`` compiles the whole.
        backend: of ``torch.compile``.

    Raises:
        ConfigError: no such backend.
    """
    import torch._dynamo

    known = torch._dynamo.list_backends(exclude_tags=())
    if backend not in known:
        hint = suggest(backend, known) or ";"
        raise ConfigError(f"model.compile_backend: unknown '{backend}'{hint} known: {', '.join(known)}")
    # Blocks of one class share a limit of 8 variants, which blocks x (adapter on, off) x (gradient, none) exceed; what
    # is beyond it runs uncompiled, and policy and reference would no longer be equal to the bit.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for module in blocks if mode == "regional" else [network]:
        module.compile(backend=backend)

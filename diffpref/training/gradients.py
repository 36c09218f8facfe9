"""The gradient of a whole update: its norm over all processes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["gradient_norm"]


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, a scalar tensor.

    Args:
        parameters: whole ones whose gradients are averaged already, or shards: then the norm is that of all shards, the
            same number on every process.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    full = getattr(norm, "full_tensor", None)  # of shards each process has the sum over its own
    return norm if full is None else full()

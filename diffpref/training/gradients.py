"""The gradient of a whole update: its norm over all processes, and clipping by it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["clip_gradients"]


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a norm in place; return the norm that they had, a scalar tensor.

    Args:
        parameters: whole ones whose gradients are averaged already, or shards: then the norm is that of all shards, the
            same number on every process.
        max_norm: of all gradients together.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    full = getattr(norm, "full_tensor", None)  # of shards each process has the sum over its own
    norm = norm if full is None else full()
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm

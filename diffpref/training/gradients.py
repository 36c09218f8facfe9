"""The gradient of a whole update: averaging what no wrapper averages, and its norm over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accelerate import Accelerator
from torch import Tensor, nn

from diffpref.models.family import Network
from diffpref.models.sharding import is_sharded

__all__ = ["average_gradients", "gradient_norm"]


def average_gradients(accelerator: Accelerator, network: Network, parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters outside of the policy's network over the processes, in place.

    DDP averages those of the network that it wraps; sharding those of every network.

    Args:
        accelerator: of this process.
        network: the policy's, as it is wrapped.
        parameters: of trained roles; some may lie in the policy's network.
    """
    if is_sharded(network):
        return
    inside = {id(parameter) for parameter in network.parameters()}
    for parameter in parameters:
        if id(parameter) not in inside and parameter.grad is not None:
            parameter.grad.copy_(accelerator.reduce(parameter.grad, reduction="mean"))


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, a scalar tensor.

    Args:
        parameters: whole ones whose gradients are averaged already, or shards: then the norm is that of all shards, the
            same number on every process.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    full = getattr(norm, "full_tensor", None)  # of shards each process has the sum over its own
    return norm if full is None else full()

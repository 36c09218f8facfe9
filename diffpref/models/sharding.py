"""Weights that are spread over processes (FSDP2): spreading them, and gathering and scattering named tensors.

accelerate shards one model; the frozen copies of a run are others, so all of them are sharded here, in the same units.
Names do not change, and what is saved is always whole: a checkpoint does not know how many processes wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # it brings the model libraries, which checkpoints do without
    from diffpref.models.base import Network

__all__ = [
    "gather_tensors",
    "is_shard",
    "is_sharded",
    "scatter_tensors",
    "shard_network",
    "whole_network",
    "without_gradient_sync",
]


def is_sharded(network: Network) -> bool:
    """Whether `shard_network` has spread a network."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(network, FSDPModule)


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def shard_network(network: Network, blocks: Sequence[nn.Module], options: Mapping[str, Any]) -> None:
    """Spread a network's weights over all processes, in place.

    Its parameters become others under the same names, so optimisers are made afterwards, and copies before.

    Args:
        network: a network; every process holds the same.
        blocks: its units, gathered one at a time; what is in none of them is a unit of its own.
        options: of ``torch.distributed.fsdp.fully_shard``.
    """
    from torch.distributed.fsdp import fully_shard

    for block in blocks:
        fully_shard(block, **options)
    # Left to itself the outermost unit stays gathered after a forward without gradient, and goes stale when the weights
    # move before the next one, as those of an averaged copy do.
    fully_shard(network, **{**options, "reshard_after_forward": True})


@contextmanager
def without_gradient_sync(network: Network) -> Iterator[None]:
    """Keep the gradients of a sharded network to each process until a backward pass outside of this context."""
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


def gather_tensors(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Return whole tensors; those that were sharded lie on the CPU, the others are returned as they are.

    All processes must ask for the same ones. They are gathered one after another.

    Args:
        tensors: by name.
        keep: whether this process needs them; without it nothing stays in its memory.
    """
    from torch.distributed.tensor import DTensor

    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        sharded = isinstance(tensor, DTensor)
        found: Any = tensor.detach()
        gathered = found.full_tensor() if sharded else tensor
        if keep:
            whole[name] = gathered.cpu() if sharded else gathered
    return whole


def whole_network(network: Network, state: Mapping[str, Tensor]) -> Network:
    """Return a network like another, which may be sharded, with these weights: the tensors themselves."""
    kind: Any = type(network)
    if is_sharded(network):
        kind = kind.__bases__[-1]  # fully_shard puts its own class before it
    with torch.device("meta"):
        plain: Network = kind.from_config(network.config)
    plain.load_state_dict(dict(state), assign=True)
    return plain.eval()


def scatter_tensors(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors sharded as those of the same name in ``like``; every process has them, none is sent.

    A name that ``like`` has not, or has whole, is returned as it is.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    placed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        as_is = like.get(name)
        if isinstance(as_is, DTensor) and as_is.shape == tensor.shape:
            local = tensor.to(as_is.device)
            placed[name] = distribute_tensor(local, as_is.device_mesh, as_is.placements, src_data_rank=None)
        else:
            placed[name] = tensor
    return placed

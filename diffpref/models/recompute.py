"""Gradient checkpointing: which blocks of a network forget their activations and compute them again going back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from diffpref.models.base import ModelFamily, Network
from diffpref.models.gates import recompute

__all__ = ["checkpoint_layers", "set_checkpointing"]


def set_checkpointing(family: ModelFamily, network: Network, level: bool | str) -> None:
    """Choose what is recomputed in the backward pass; the gradients are the same.

    Args:
        family: knows the blocks of its network.
        network: a model, not wrapped.
        level: ``False``: nothing. ``True``: every block that the library can recompute, for the least memory.
            ``"every_second"``: every second block from the first, for about half the saving at half the cost.
    """
    family.set_checkpointing(network, level)


def checkpoint_layers(network: Network, blocks: Sequence[nn.Module], level: bool | str) -> None:
    """Do so in a model of transformers, whose layers know how.

    Args:
        network: a model, not wrapped.
        blocks: its layers.
        level: as of `set_checkpointing`.
    """
    if not level:
        return
    network._set_gradient_checkpointing(True, recompute, 2 if level == "every_second" else 1)
    for block in blocks:  # what is inside them stays as it is: no dropout
        block.training = True

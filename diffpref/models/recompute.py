"""Gradient checkpointing: which blocks of a network forget their activations and compute them again going back."""

from __future__ import annotations

from diffpref.models.base import ModelFamily, Network

__all__ = ["set_checkpointing"]


def set_checkpointing(family: ModelFamily, network: Network, level: bool | str) -> None:
    """Choose what is recomputed in the backward pass; the gradients are the same.

    Args:
        family: knows the blocks of its network.
        network: a model, not wrapped.
        level: ``False``: nothing. ``True``: every block that the library can recompute, for the least memory.
            ``"every_second"``: every second block from the first, for about half the saving at half the cost.
    """
    family.set_checkpointing(network, level)

"""Gradient checkpointing: which blocks of a denoiser forget their activations and compute them again going back."""

from __future__ import annotations

from diffpref.models.family import DenoiserFamily, Network
from diffpref.models.gates import recompute

__all__ = ["set_checkpointing"]


def set_checkpointing(family: DenoiserFamily, network: Network, level: bool | str) -> None:
    """Choose what is recomputed in the backward pass; the gradients are the same.

    Args:
        family: knows the blocks of its network.
        network: a diffusers model, not wrapped.
        level: ``False``: nothing. ``True``: every block that diffusers can recompute, for the least memory.
            ``"every_second"``: every second block from the first, for about half the saving at half the cost.
    """
    if not level:
        network.disable_gradient_checkpointing()
        return
    network.enable_gradient_checkpointing(recompute)
    if level == "every_second":
        others: list[Network] = [module for block in family.blocks(network)[1::2] for module in block.modules()]
        for module in others:
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False

"""Which activation CLIP weights were trained with. OpenAI's need QuickGELU; with GELU they load and score wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError

__all__ = ["OPENAI_MARKS", "needs_quick_gelu"]

OPENAI_MARKS = ("context_length", "input_resolution", "vocab_size")
"""Numbers that OpenAI's own state dicts hold beside the weights."""
_PROJECTIONS = ("visual.proj", "text_projection")


def _were_halves(tensors: Mapping[str, Tensor]) -> bool:
    """Say whether the projections hold float16 numbers, in whatever dtype: OpenAI published halves."""
    found = [tensors[name] for name in _PROJECTIONS if name in tensors and tensors[name].dtype != torch.bfloat16]
    return bool(found) and all(torch.equal(t, t.half().to(t.dtype)) for t in found)


def needs_quick_gelu(owner: str | Path, tensors: Mapping[str, Tensor], configured: bool, said: bool | None) -> bool:
    """Return whether a model of these weights must use QuickGELU.

    Args:
        owner: the file, for messages.
        tensors: of the checkpoint, by open_clip's names.
        configured: what the architecture or the folder's config says.
        said: what the user says; None: nothing.

    Raises:
        ConfigError: the user contradicts the config, or the weights may be OpenAI's and nobody says so.
    """
    if said is not None:
        if configured and not said:
            raise ConfigError(f"{owner}: quick_gelu: false, but its architecture is one with QuickGELU")
        return said
    if configured or any(mark in tensors for mark in OPENAI_MARKS):
        return True
    if _were_halves(tensors):
        raise ConfigError(
            f"{owner}: halves, as OpenAI published its weights, but no QuickGELU in the config, with which"
            " alone OpenAI's score right; pass quick_gelu=true for weights of OpenAI, quick_gelu=false for others"
        )
    return False

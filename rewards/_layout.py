"""Published tensors into a module of the same names: every one of them, or a line that says which do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

from diffpref.core.errors import ModelError

__all__ = ["fill", "num_layers"]


def num_layers(names: Iterable[str], prefix: str) -> int:
    """Return how many numbered parts there are below a prefix such as ``visual.blocks.``."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, *, dtype: torch.dtype, spare: Iterable[str] = ()
) -> None:
    """Put tensors into a module, which is then in evaluation mode and without gradients of its own.

    Args:
        module: may have been made on the meta device, where it costs no memory.
        tensors: by the names that the module has.
        path: for messages.
        dtype: of the weights from now on.
        spare: patterns of names that may be there and are not read, such as buffers that older libraries stored.

    Raises:
        ModelError: tensors are missing, unknown or of another shape; the message has their number and the first.
    """
    own = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not any(fnmatch(name, pattern) for pattern in spare)}
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    misshapen = [name for name in sorted(own.keys() & given.keys()) if own[name].shape != given[name].shape]
    problems = [
        *([f"lacks {len(missing)} tensors, such as {missing[0]}"] if missing else []),
        *([f"has {len(unknown)} unknown tensors, such as {unknown[0]}"] if unknown else []),
        *(f"{name} is {tuple(given[name].shape)}, expected {tuple(own[name].shape)}" for name in misshapen[:1]),
    ]
    if problems:
        raise ModelError(f"{path}: not the published layout: {'; '.join(problems)}")
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    module.load_state_dict(cast, strict=True, assign=True)
    module.eval().requires_grad_(False)

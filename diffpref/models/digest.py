"""A fingerprint of weights: equal for equal bits, wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["digest"]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 32 hexadecimal digits that depend on every name, shape, dtype and bit.

    Tensors that are sharded over processes are gathered first, so that the answer does not depend on their number;
    every process must then ask.
    """
    import xxhash  # not needed by those who only run networks

    found = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        tensor = getattr(tensor, "full_tensor", lambda same=tensor: same)()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

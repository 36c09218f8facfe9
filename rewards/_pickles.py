"""Tensors from checkpoint files. A pickle is opened once, with weights-only loading, and kept as safetensors.

Files are mapped, not read: tensors come into memory as they are used, and never twice.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffpref.core.errors import ModelError
from diffpref.core.files import publish_file
from diffpref.rewards._weights import PICKLED, UNREADABLE, digest, first_line

__all__ = ["cache_folder", "read_tensors"]


def cache_folder() -> Path:
    """Return where converted checkpoints are kept: ``$DIFFPREF_CACHE``, else ``~/.cache/diffpref``."""
    return Path(os.environ.get("DIFFPREF_CACHE") or Path.home() / ".cache" / "diffpref")


def _unwrapped(content: Any) -> Mapping[str, Any]:
    for key in ("state_dict", "model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"holds no tensors by name but {type(content).__name__}")
    return content


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as safetensors holds them: contiguous, and no two in one piece of memory."""
    result, pieces = {}, set()
    for name, tensor in tensors.items():
        piece = tensor.untyped_storage()
        shared = piece.data_ptr() in pieces or piece.nbytes() != tensor.numel() * tensor.element_size()
        pieces.add(piece.data_ptr())
        result[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return result


def read_tensors(file: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file, on the CPU.

    Args:
        file: ``.safetensors``, or a pickle of tensors by name, possibly under ``state_dict``, ``model`` or ``module``.
        allow_pickle: whether a pickle may be opened, which is needed the first time only: its tensors are kept as
            safetensors under `cache_folder`, by the sha256 of the file.

    Raises:
        ModelError: a pickle without leave, or a file that is no checkpoint of tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix not in PICKLED:
            raise ModelError(f"{file}: expected a .safetensors file, or one of {', '.join(PICKLED)}")
        converted = cache_folder() / "converted" / f"{digest(file)}.safetensors"
        if converted.is_file():
            return load_file(converted)
        if not allow_pickle:
            raise ModelError(
                f"{file.name} is a pickle, which may run code; pass allow_pickle=true if you trust it: it is read with"
                " weights-only loading, once, and kept as safetensors"
            )
        mapped = zipfile.is_zipfile(file)  # else of torch before 1.6, which can only be read whole
        content = _unwrapped(torch.load(file, map_location="cpu", weights_only=True, mmap=mapped))
        tensors = _apart({name: value for name, value in content.items() if isinstance(value, Tensor)})
        if not tensors:
            raise ValueError("holds no tensors")
    except UNREADABLE as error:
        raise ModelError(f"{file}: cannot be read as a checkpoint of tensors: {first_line(error)}") from error
    with publish_file(converted) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    del content, tensors
    return load_file(converted)

"""Safe loading of single components: safetensors only, no code from repositories, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from diffpref.core.errors import ModelError

__all__ = ["load_component", "load_settings"]

PICKLED = (".bin", ".ckpt", ".pt", ".pth")


def _describe_folder(folder: Path, subfolder: str) -> str:
    if not folder.is_dir():
        return "is neither a folder nor a hub id that can be reached"
    if not (folder / subfolder).is_dir():
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        return f"has no subfolder '{subfolder}' (it holds {present}); expected a diffusers pipeline folder"
    names = [p.name for p in (folder / subfolder).iterdir()]
    if any(n.endswith(PICKLED) for n in names) and not any(n.endswith(".safetensors") for n in names):
        return f"holds only pickled weights in '{subfolder}'; set model.allow_pickle to load them, or convert them"
    return f"holds no loadable '{subfolder}'"


def load_component(
    kind: type[Any],
    path: str,
    subfolder: str,
    *,
    allow_pickle: bool = False,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """Load one part of a pipeline with the class's own ``from_pretrained``.

    Args:
        kind: a diffusers or transformers class.
        path: the pipeline's folder or hub id.
        subfolder: such as ``"unet"``.
        allow_pickle: also accept pickled weights, opened with weights-only loading.
        dtype: of the weights; None leaves them as they are stored.
        options: passed on, such as ``revision`` and ``variant``.

    Raises:
        ModelError: one line that says what is wrong with the folder or id.
    """
    if issubclass(kind, nn.Module):
        options["use_safetensors"] = None if allow_pickle else True
        # diffusers and transformers name it differently
        options["torch_dtype" if issubclass(kind, ModelMixin) else "dtype"] = dtype
    try:
        return kind.from_pretrained(path, subfolder=subfolder, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = _describe_folder(Path(path), subfolder)
        first_line = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"model.path: {path} {reason} ({first_line})") from error


def load_settings(path: str, subfolder: str, name: str, *, revision: str | None = None) -> dict[str, Any]:
    """Read a JSON settings file of a pipeline, local or from the hub.

    Raises:
        ModelError: there is none, or it is not JSON.
    """
    from huggingface_hub import hf_hub_download

    file = Path(path) / subfolder / name
    try:
        if not Path(path).is_dir():
            file = Path(hf_hub_download(path, f"{subfolder}/{name}" if subfolder else name, revision=revision))
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path: {path} {_describe_folder(Path(path), subfolder)}") from error


def freeze(module: nn.Module) -> nn.Module:
    """Put a module in evaluation mode without gradients."""
    return module.requires_grad_(False).eval()

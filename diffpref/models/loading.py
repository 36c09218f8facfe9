"""Safe loading of single components: safetensors only, no code from repositories, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError
from torch import nn

from diffpref.core.errors import ModelError

__all__ = ["check_kind", "check_vocabulary", "freeze", "load_component", "load_settings"]

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
# what from_pretrained of diffusers and transformers raises on folders, configs and weights that it cannot use
_UNUSABLE = (OSError, ValueError, ImportError, RuntimeError, SafetensorError)
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last: a safety checker, which is never loaded
_KINDS = {"text_time": "an SDXL", None: "a Stable Diffusion 1 or 2"}


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
        ModelError: one line that says what is wrong with the folder or id; also when weights are missing, which the
            libraries would fill with random numbers.
    """
    network = issubclass(kind, nn.Module)
    if network:
        load_settings(path, subfolder, "config.json", revision=options.get("revision"))  # refuses code of its own
        options |= {"use_safetensors": None if allow_pickle else True, "output_loading_info": True}
        # diffusers and transformers name it differently
        options["torch_dtype" if issubclass(kind, ModelMixin) else "dtype"] = dtype
    try:
        loaded = kind.from_pretrained(path, subfolder=subfolder, **options)
    except _UNUSABLE as error:
        reason = _describe_folder(Path(path), subfolder)
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"model.path: {path} {reason} ({first_line})") from error
    if not network:
        return loaded
    module, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"model.path: {path} lacks {len(missing)} weights of '{subfolder}', the first is {missing[0]}")
    return module


def load_settings(path: str, subfolder: str, name: str, *, revision: str | None = None) -> dict[str, Any]:
    """Read a JSON settings file of a pipeline, local or from the hub.

    Raises:
        ModelError: there is none, it is not a JSON object, or it names code of the repository.
    """
    from huggingface_hub import hf_hub_download

    file = Path(path) / subfolder / name
    try:
        if not Path(path).is_dir():
            file = Path(hf_hub_download(path, f"{subfolder}/{name}" if subfolder else name, revision=revision))
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if file.is_file():
            raise ModelError(f"model.path: {file} is not readable JSON ({error})") from error
        raise ModelError(f"model.path: {path} {_describe_folder(Path(path), subfolder, name)}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"model.path: {file} must hold an object of settings, got {type(settings).__name__}")
    _refuse_code(file, settings)
    return settings


def _refuse_code(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse settings that name Python files of the repository: ``auto_map``, or a class that is no library's."""
    own = [key for key in ("auto_map", "custom_pipelines") if key in settings]
    own += [
        key
        for key, value in settings.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] not in _LIBRARIES
        if file.name == "model_index.json"
    ]
    if own:
        raise ModelError(
            f"model.path: {file} names code of its own ('{own[0]}'), which is never run and no setting allows; use a"
            " model of diffusers' or transformers' own classes"
        )


def check_kind(path: str, config: Mapping[str, Any], family: str, kind: str, expected: str | None) -> None:
    """Refuse a denoiser that is another family's.

    Args:
        path: for the message.
        config: the denoiser's.
        family: registry name.
        kind: name of the family's class of denoisers.
        expected: the family's ``addition_embed_type``.

    Raises:
        ModelError: the denoiser's class or ``addition_embed_type`` is another.
    """
    if (found := config.get("_class_name", kind)) != kind:
        raise ModelError(f"model.family: '{family}' does not fit {path}, whose denoiser is a {found}, not a {kind}")
    given = config.get("addition_embed_type")
    if given != expected:
        what = _KINDS.get(given, f"a '{given}'")
        raise ModelError(f"model.family: '{family}' does not fit {path}, which holds {what} denoiser")


def check_vocabulary(path: str, part: str, num_words: int, num_embeddings: int) -> None:
    """Refuse a tokenizer that is not its encoder's; transformers makes an empty one where its files are missing.

    Raises:
        ModelError: the tokenizer knows more words than the encoder embeds, or hardly any of them.
    """
    if not 0.9 * num_embeddings <= num_words <= num_embeddings:
        raise ModelError(
            f"model.path: {path} has a '{part}' of {num_words} words for {num_embeddings} embeddings; are its files"
            " there?"
        )


def freeze(module: Any) -> Any:
    """Put a module in evaluation mode without gradients."""
    return module.requires_grad_(False).eval()


def _describe_folder(folder: Path, subfolder: str, name: str = "") -> str:
    if not folder.is_dir():
        return "is neither a folder nor a hub id that can be reached"
    present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    if not (folder / subfolder).is_dir():
        return f"has no subfolder '{subfolder}' (it holds {present}); expected a diffusers pipeline folder"
    if name:
        wanted = f"{subfolder}/{name}" if subfolder else name
        return f"has no {wanted} (it holds {present}); expected a diffusers pipeline folder"
    names = [p.name for p in (folder / subfolder).iterdir()]
    if any(n.endswith(PICKLED) for n in names) and not any(n.endswith(".safetensors") for n in names):
        return f"holds only pickled weights in '{subfolder}'; set model.allow_pickle to load them, or convert them"
    return f"holds no loadable '{subfolder}'"

"""A LoRA in the form that kohya's scripts write and ComfyUI and other programs read.

Names are diffusers' with underscores, ``lora_unet_down_blocks_1_..._to_q``, and each layer has its own ``.alpha``: what
the update is scaled by, times the rank. diffusers' converter writes the rank there whatever the scale was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.files import write_atomic
from diffpref.models.tensor_files import with_sorted_metadata

__all__ = ["kohya_metadata", "read_lora", "to_kohya", "write_kohya"]

FILE = "pytorch_lora_weights.safetensors"
PREFIX = "unet."
VERSIONS = {  # (family, width of the text) -> what sd-scripts calls it, its architecture, its side in pixels
    ("sd", 768): ("sd_v1", "stable-diffusion-v1", 512),
    ("sd", 1024): ("sd_v2", "stable-diffusion-v2-512", 512),
    ("sdxl", 2048): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024),
}


def read_lora(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the LoRA of a run: PEFT's names without ``unet.``, and the adapter's settings.

    Raises:
        CheckpointError: there is none, or it is damaged or does not say its rank and alpha.
    """
    file = Path(folder) / FILE
    try:
        weights = load_file(file)
        with safe_open(file, framework="pt") as reader:
            settings = json.loads((reader.metadata() or {})["lora_adapter_metadata"])
    except KeyError as error:
        raise CheckpointError(f"{file}: does not say its rank and alpha, so its scale is not known") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{file}: not a readable LoRA ({str(error).splitlines()[0]})") from error
    return (
        {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()},
        {name.removeprefix(PREFIX): value for name, value in settings.items()},
    )


def to_kohya(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename a LoRA of the denoiser, and give each layer its true alpha.

    Args:
        weights: ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``, PEFT's names.
        settings: PEFT's: ``r``, ``lora_alpha``, ``rank_pattern``, ``alpha_pattern``, ``use_rslora``.

    Raises:
        ConfigError: a weight of another kind, such as DoRA's, for which this form has no place here.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, kind = name.rpartition(".lora_")
        if kind not in ("A.weight", "B.weight"):
            raise ConfigError(
                f"the kohya form holds plain LoRA only, got the weight '{name}': diffusers drops DoRA's scales from"
                " files of this form, and the picture is another one; export with --format diffusers or merged"
            )
        short = f"lora_unet_{layer.replace('.', '_')}"
        renamed[f"{short}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = tensor.contiguous()
        if kind[0] == "A":
            rank = tensor.shape[0]
            alpha = _matching(settings.get("alpha_pattern"), layer, settings["lora_alpha"])
            scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
            renamed[f"{short}.alpha"] = torch.tensor(scale * rank, dtype=torch.float32)
    return renamed


def kohya_metadata(family: str, prediction_type: str, width: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what programs read of a file before they open it: ``ss_`` of sd-scripts, and the model specification.

    Args:
        family: ``sd`` or ``sdxl``.
        prediction_type: of the scheduler.
        width: of the text that the denoiser reads, which tells SD 1 from SD 2.
        settings: PEFT's.

    Raises:
        ConfigError: another family.
    """
    if family not in ("sd", "sdxl"):
        raise ConfigError(f"the kohya form is written for the families sd and sdxl, not for '{family}'")
    version, architecture, side = VERSIONS.get((family, width)) or next(
        v for k, v in VERSIONS.items() if k[0] == family
    )
    by_velocity, second = prediction_type == "v_prediction", version == "sd_v2"
    if second and by_velocity:
        architecture, side = "stable-diffusion-v2-768-v", 768
    return {
        "ss_base_model_version": version + ("_v" if by_velocity and family == "sd" else ""),
        "ss_network_alpha": f"{settings['lora_alpha']:g}",
        "ss_network_args": "{}",
        "ss_network_dim": str(settings["r"]),
        "ss_network_module": "networks.lora",
        "ss_v2": str(second),
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": "v" if by_velocity else "epsilon",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.sai_model_spec": "1.0.0",
    }


def write_kohya(file: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file whole or not at all; equal weights give equal files."""
    write_atomic(Path(file), with_sorted_metadata(save(dict(weights), metadata=dict(metadata))))


def _matching(pattern: Any, layer: str, default: float) -> float:
    """Return the value that PEFT's pattern gives a layer: its key is the layer's name or the end of it."""
    for key, value in (pattern or {}).items():
        if layer == key or layer.endswith(f".{key}"):
            return float(value)
    return float(default)

"""LoRAs of transformers' models in PEFT's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ModelError
from diffpref.core.files import write_atomic
from diffpref.models.base import Network

__all__ = ["add_adapter", "fold", "read_adapter", "save_adapter"]

PREFIX = "base_model.model."
"""What PEFT writes before the names of a model's layers."""


def add_adapter(network: Network, config: Any, name: str) -> None:
    """Add a LoRA of PEFT's settings to a network.

    Raises:
        ValueError: the network has no layers of the names to adapt.
    """
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, network, name)  # what add_adapter of transformers does, for any version of PEFT


def read_adapter(network: Network, path: str, name: str) -> int:
    """Add the LoRA of a folder to a network under a name; return how many numbers its file holds.

    Raises:
        ModelError: PEFT wrote no LoRA there.
    """
    from peft import LoraConfig
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = Path(path)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{path}: no adapter_config.json; expected a folder that PEFT wrote")
    config = LoraConfig.from_pretrained(str(folder))
    weights = load_file(folder / "adapter_model.safetensors")
    add_adapter(network, config, name)
    set_peft_model_state_dict(
        network, {key.removeprefix(PREFIX): tensor for key, tensor in weights.items()}, adapter_name=name
    )
    return sum(tensor.numel() for tensor in weights.values())


def save_adapter(folder: Path, state: Tensors, settings: Mapping[str, Any], base: str, task: str | None) -> None:
    """Write a LoRA so that PEFT loads it without us.

    Args:
        folder: to fill.
        state: weights by PEFT's names.
        settings: of PEFT's LoraConfig, with sets in order.
        base: the model that it adapts; a local folder is not named.
        task: PEFT's name of the kind of model; None where it has none.
    """
    from safetensors.torch import save

    path = Path(base)
    known = None if path.exists() or path.is_absolute() or base == "tiny" else base
    told = {**settings, "base_model_name_or_path": known, "task_type": task, "inference_mode": True}
    weights = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomic(Path(folder) / "adapter_config.json", json.dumps(told, indent=2, sort_keys=True) + "\n")
    write_atomic(Path(folder) / "adapter_model.safetensors", save(weights, {"format": "pt"}))


def fold(network: Network) -> None:
    """Add every LoRA in a network to the weights that it adapts, and take it out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, module.get_base_layer())
    del network.peft_config

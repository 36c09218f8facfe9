"""What we ask of PEFT: several LoRAs in one network, one of them in force, read from whoever's file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from safetensors import SafetensorError
from torch import nn

from diffpref.core.errors import ModelError
from diffpref.models.base import ModelFamily, Network

__all__ = ["is_lora", "layers", "load_lora", "named_parameters", "select_lora", "undisturbed"]

# what diffusers and PEFT raise on files that they cannot use
_UNUSABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


_LAYERS: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()
"""Walking through a denoiser costs a millisecond, and a role's gate is entered twice a step."""


def is_lora(path: str) -> bool:
    """Whether a path is a LoRA: a safetensors file, or a folder with such files and no model's config."""
    where = Path(path)
    if where.is_file():
        return where.suffix == ".safetensors"
    if not where.is_dir():
        return False
    return not any((where / name).exists() for name in ("config.json", "model_index.json")) and any(
        where.glob("*.safetensors")
    )


def load_lora(family: ModelFamily, network: Network, path: str, name: str) -> None:
    """Add a LoRA to a network under a name; what the network holds already stays as it is and in force.

    Args:
        family: whose pipeline reads the file: PEFT's keys, diffusers' older ones, or kohya's.
        network: that it was made for.
        path: folder with ``pytorch_lora_weights.safetensors``, or a file.
        name: of the weights within the network.

    Raises:
        ModelError: no LoRA lies there, it does not fit the denoiser, or it also adapts text encoders.
    """
    if not is_lora(path):
        raise ModelError(f"{path}: holds no LoRA; expected a .safetensors file or a folder with one")
    try:
        with undisturbed(network):
            count = family.read_lora(network, path, name)
    except _UNUSABLE as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{path}: no LoRA for this model ({first_line})") from error
    _check_complete(network, count, name, path)


def _check_complete(network: Network, count: int, name: str, path: str) -> None:
    """Refuse files of which a part found no place; the libraries only warn."""
    from peft.utils import get_peft_model_state_dict

    held = get_peft_model_state_dict(network, adapter_name=name)
    placed = sum(t.numel() for t in held.values())
    if placed != count:
        raise ModelError(f"{path}: no LoRA for this model ({count:,} numbers, {placed:,} found a place)")


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Keep which LoRA is in force and what is trained, while another is added."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    in_force = [(layer._active_adapter, layer._disable_adapters) for layer in layers(network)][:1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        yield
    _LAYERS.pop(network, None)
    for layer in layers(network):
        for active, disabled in in_force:  # none where this is the network's first
            layer._active_adapter, layer._disable_adapters = active, disabled
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)


@contextmanager
def select_lora(network: Network, name: str) -> Iterator[None]:
    """Run a network with the LoRA of a name alone, for the duration of the context."""
    switched = layers(network)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in switched]
    for layer in switched:
        # Not set_adapter(): it also sets requires_grad.
        layer._active_adapter, layer._disable_adapters = [name], False
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(switched, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def layers(network: Network) -> list[Any]:
    """Return the layers of a network that hold adapters; looked for once, and again after one was added."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if network not in _LAYERS:
        _LAYERS[network] = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    return _LAYERS[network]


def named_parameters(network: Network, name: str) -> dict[str, nn.Parameter]:
    """Return the parameters of one LoRA in a network."""
    own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
    return {key: parameter for key, parameter in network.named_parameters() if own.search(key)}

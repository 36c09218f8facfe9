"""LoRA: a low-rank update of the attention projections, through PEFT."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.files import write_atomic
from diffpref.core.randomness import Random
from diffpref.models.adapters import Adapter, registry
from diffpref.models.family import DenoiserFamily, Network

__all__ = ["Lora"]


@registry.register("lora")
@dataclass(frozen=True)
class Lora(Adapter):
    """A low-rank adapter through PEFT; Gaussian start, B = 0, so that training starts at the base exactly."""

    has_base = True
    folder = "lora"

    def install(self, family: DenoiserFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        from peft import LoraConfig

        network = family.network
        network.requires_grad_(False)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            init_lora_weights="gaussian",
            target_modules=list(self.targets or family.lora_targets),
        )
        try:
            network.add_adapter(config)
        except ValueError as error:
            raise ConfigError(f"adapter.targets: {str(error).splitlines()[0][:200]}") from error
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        for name, parameter in trained.items():
            parameter.data = parameter.data.float()
            if "lora_A" in name:  # PEFT draws from the global generator; ours is keyed by the layer's name
                drawn = torch.randn(parameter.shape, generator=random.generator("adapter", name))
                parameter.data.copy_(drawn / self.rank)
        return {"adapter": list(trained.values())}

    @contextmanager
    def off(self, network: Network) -> Iterator[None]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        # Not enable_adapters(): it also sets requires_grad, and leaves every layer on, whatever it was before.
        layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        before = [layer.disable_adapters for layer in layers]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, disabled in zip(layers, before, strict=True):
                layer._disable_adapters = disabled

    def state(self, network: Network) -> dict[str, Tensor]:
        from peft.utils import get_peft_model_state_dict

        return get_peft_model_state_dict(network)

    def load_state(self, network: Network, state: Mapping[str, Tensor]) -> None:
        from peft.utils import set_peft_model_state_dict

        own, given = set(self.state(network)), set(state)
        if own != given:
            odd = sorted(own ^ given)
            raise CheckpointError(f"the adapter's weights do not fit: {len(odd)} names differ, the first is {odd[0]}")
        set_peft_model_state_dict(network, dict(state))

    def save(self, family: DenoiserFamily, network: Network, folder: Path) -> None:
        # without the metadata diffusers takes alpha = rank, and the picture is another one
        metadata = network.peft_config["default"].to_dict()
        # PEFT keeps sets, whose order differs between processes; equal weights are to give equal files
        metadata = {name: sorted(value) if isinstance(value, set) else value for name, value in metadata.items()}
        family.pipeline_class.save_lora_weights(
            folder,
            # PEFT's own key names: in diffusers' older ones the attention layers are lost where others are adapted too
            unet_lora_layers=self.state(network),
            unet_lora_adapter_metadata=metadata,
        )
        for file in Path(folder).glob("*.safetensors"):
            _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """Rewrite a safetensors file with its metadata in order; the library's differs from one call to the next."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the numbers begin at a multiple of 8
    write_atomic(file, len(encoded).to_bytes(8, "little") + encoded + content[end:])

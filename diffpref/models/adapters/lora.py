"""LoRA: a low-rank update of the attention projections, through PEFT.

A role's LoRA is a second one in the same network. Which is in force is decided by a gate for each call; at rest it is
the policy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffpref.core.errors import CheckpointError, ConfigError, ModelError
from diffpref.core.files import write_atomic
from diffpref.core.randomness import Random
from diffpref.models.adapters import POLICY, Adapter, Held, registry
from diffpref.models.adapters._peft import (
    layers,
    load_lora,
    named_parameters,
    select_lora,
    undisturbed,
)
from diffpref.models.base import ModelFamily, Network
from diffpref.models.tensor_files import with_sorted_metadata

__all__ = ["Lora"]


@registry.register("lora")
@dataclass(frozen=True)
class Lora(Adapter):
    """A low-rank adapter through PEFT; Gaussian start, B = 0, so that training starts at the base exactly."""

    has_base = True
    folder = "lora"

    def install(self, family: ModelFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        network = family.network
        network.requires_grad_(False)
        if self.start is None:
            self._draw(family, POLICY, random)
        else:
            try:
                load_lora(family, network, self.start, POLICY)
            except ModelError as error:
                raise ModelError(f"adapter.start: {error}") from error
            self._check_start(network.peft_config[POLICY])
        trained = self.parameters(Held(network))
        for parameter in trained:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        return {"adapter": trained}

    def _check_start(self, started: Any) -> None:
        """Refuse a recipe that asks for another shape than the LoRA has from which it starts."""
        shape: dict[str, tuple[float, float]] = {"rank": (self.rank, started.r)}
        if self.alpha is not None:
            shape["alpha"] = (self.alpha, started.lora_alpha)
        if self.dora != started.use_dora:
            raise ConfigError(f"adapter.dora: must be that of adapter.start, {str(started.use_dora).lower()}")
        for name, (asked, has) in shape.items():
            if asked != has:
                raise ConfigError(f"adapter.{name}: must be that of adapter.start, {has:g}, got {asked:g}")
        if self.targets is not None and sorted(self.targets) != sorted(started.target_modules):
            raise ConfigError("adapter.targets: must not be given with adapter.start, whose layers are kept")

    def _draw(self, family: ModelFamily, name: str, random: Random) -> None:
        from peft import LoraConfig

        there = getattr(family.network, "peft_config", {})  # a second LoRA adapts what the first does
        targets = self.targets or (there[POLICY].target_modules if POLICY in there else family.lora_targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            init_lora_weights="gaussian",
            target_modules=sorted(targets),
            use_dora=self.dora,
        )
        self._add(family, config, name)
        for key, parameter in named_parameters(family.network, name).items():
            parameter.data = parameter.data.float()
            if "lora_A" in key:  # PEFT draws from the global generator; ours is keyed by the layer's name
                drawn = torch.randn(parameter.shape, generator=random.generator("adapter", key))
                parameter.data.copy_(drawn / self.rank)

    def _add(self, family: ModelFamily, config: Any, name: str) -> None:
        try:
            with undisturbed(family.network):
                family.add_lora(family.network, config, name)
        except ValueError as error:
            raise ConfigError(f"adapter.targets: {str(error).splitlines()[0][:200]}") from error

    @contextmanager
    def off(self, network: Network) -> Iterator[None]:
        # Not enable_adapters(): it also sets requires_grad, and leaves every layer on, whatever it was before.
        switched = layers(network)
        before = [layer.disable_adapters for layer in switched]
        for layer in switched:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, disabled in zip(switched, before, strict=True):
                layer._disable_adapters = disabled

    def copy(self, family: ModelFamily, name: str) -> Held:
        from peft import LoraConfig

        network = family.network
        self._add(family, LoraConfig(**network.peft_config[POLICY].to_dict()), name)
        self.load_state(network, self.state(network), name)
        return self._held(network, name)

    def fresh(self, family: ModelFamily, name: str, random: Random) -> Held:
        self._draw(family, name, random)
        return self._held(family.network, name)

    def _held(self, network: Network, name: str) -> Held:
        for parameter in named_parameters(network, name).values():
            parameter.data = parameter.data.float()
        return Held(network, name, partial(select_lora, network, name))

    def parameters(self, held: Held) -> list[nn.Parameter]:
        return list(named_parameters(held.network, held.name).values())

    def state(self, network: Network, name: str = POLICY) -> dict[str, Tensor]:
        from peft.utils import get_peft_model_state_dict

        return get_peft_model_state_dict(network, adapter_name=name)

    def unadapted(self, network: Network) -> dict[str, Tensor]:
        return {name.replace(".base_layer.", "."): tensor for name, tensor in super().unadapted(network).items()}

    @staticmethod
    def is_adapted(name: str) -> bool:
        return ".lora_" in name

    def load_state(self, network: Network, state: Mapping[str, Tensor], name: str = POLICY) -> None:
        from peft.utils import set_peft_model_state_dict

        own, given = set(self.state(network, name)), set(state)
        if own != given:
            odd = sorted(own ^ given)
            raise CheckpointError(f"the adapter's weights do not fit: {len(odd)} names differ, the first is {odd[0]}")
        set_peft_model_state_dict(network, dict(state), adapter_name=name)

    def save(
        self, family: ModelFamily, network: Network, folder: Path, state: Mapping[str, Tensor] | None = None
    ) -> None:
        metadata = network.peft_config[POLICY].to_dict()
        # PEFT keeps sets, whose order differs between processes; equal weights are to give equal files
        metadata = {name: sorted(value) if isinstance(value, set) else value for name, value in metadata.items()}
        family.save_lora(folder, state or self.state(network), metadata)
        for file in Path(folder).glob("*.safetensors"):
            write_atomic(file, with_sorted_metadata(file.read_bytes()))

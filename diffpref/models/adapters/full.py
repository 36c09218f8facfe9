"""Full fine-tuning: every weight of the network, in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models.adapters import POLICY, Adapter, Held, registry
from diffpref.models.base import ModelFamily, Network
from diffpref.models.loading import freeze

__all__ = ["Full"]


@registry.register("full")
@dataclass(frozen=True)
class Full(Adapter):
    """Every weight of the network."""

    has_base = False
    folder = "model"

    def __post_init__(self) -> None:
        if self.start is not None:
            raise ConfigError("adapter.start: is a LoRA's; with adapter.kind full the start is model.path")
        if self.dora:
            raise ConfigError("adapter.dora: is a LoRA's; with adapter.kind full every weight is trained")

    def install(self, family: ModelFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        network = family.network.float().requires_grad_(True)
        return {"network": list(network.parameters())}

    def copy(self, family: ModelFamily, name: str) -> Held:
        return Held(freeze(copy.deepcopy(family.network)))

    def parameters(self, held: Held) -> list[nn.Parameter]:
        return list(held.network.parameters())

    def state(self, network: Network, name: str = POLICY) -> dict[str, Tensor]:
        return dict(network.state_dict())

    def load_state(self, network: Network, state: Mapping[str, Tensor], name: str = POLICY) -> None:
        network.load_state_dict(state)

    def save(
        self, family: ModelFamily, network: Network, folder: Path, state: Mapping[str, Tensor] | None = None
    ) -> None:
        family.save_network(network, folder, state)

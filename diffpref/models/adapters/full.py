"""Full fine-tuning: every weight of the denoiser, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from diffpref.core.randomness import Random
from diffpref.models.adapters import Adapter, registry
from diffpref.models.family import DenoiserFamily, Network

__all__ = ["Full"]


@registry.register("full")
@dataclass(frozen=True)
class Full(Adapter):
    """Every weight of the denoiser."""

    has_base = False
    folder = "model"

    def install(self, family: DenoiserFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        network = family.network.float().requires_grad_(True)
        return {"network": list(network.parameters())}

    def state(self, network: Network) -> dict[str, Tensor]:
        return network.state_dict()

    def load_state(self, network: Network, state: Mapping[str, Tensor]) -> None:
        network.load_state_dict(state)

    def save(self, family: DenoiserFamily, network: Network, folder: Path) -> None:
        network.save_pretrained(folder)

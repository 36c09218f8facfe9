"""Part of the network: the weights of some layers, in float32; the others stay as they are.

Reward models are published so: HPS v2 trains the last 11 layers of one tower and the last 20 of the other, ImageReward
the last 30 % of both.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.randomness import Random
from diffpref.models.adapters import POLICY, Adapter, Held, registry
from diffpref.models.base import ModelFamily, Network
from diffpref.models.loading import freeze

__all__ = ["Part"]

KEPT = "_diffpref_part"
"""The attribute of a network, and of its copies, that names what is trained of it."""


@registry.register("part")
@dataclass(frozen=True)
class Part(Adapter):
    """Weights by name: ``targets`` are beginnings of their dotted names, or patterns with ``*``, ``?`` and ``[2-9]``.

    Without targets it is the second half of the family's blocks.
    """

    has_base = False
    folder = "model"

    def __post_init__(self) -> None:
        if self.start is not None or self.dora:
            raise ConfigError("adapter.start and adapter.dora: are a LoRA's; leave them out with adapter.kind part")

    def install(self, family: ModelFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        network = family.network.requires_grad_(False)
        names = self._chosen(family, network)
        for name, parameter in network.named_parameters():
            if name in names:
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        setattr(network, KEPT, names)
        return {"network": self.parameters(Held(network))}

    def _chosen(self, family: ModelFamily, network: Network) -> tuple[str, ...]:
        named = dict(network.named_parameters())
        if self.targets is None:
            blocks = family.blocks(network)
            own = {id(p) for block in blocks[len(blocks) // 2 :] for p in block.parameters()}
            return tuple(name for name, parameter in named.items() if id(parameter) in own)
        for target in self.targets:
            if not any(_matches(name, target) for name in named):
                raise ConfigError(
                    f"adapter.targets: no weight's name begins with '{target}' or matches it; names are such as"
                    f" {', '.join([*named][:: max(1, len(named) // 3)][:3])}"
                )
        return tuple(name for name in named if any(_matches(name, target) for target in self.targets))

    def copy(self, family: ModelFamily, name: str) -> Held:
        return Held(freeze(copy.deepcopy(family.network)))

    def parameters(self, held: Held) -> list[nn.Parameter]:
        names = _names(held.network)
        return [parameter for name, parameter in held.network.named_parameters() if name in names]

    def state(self, network: Network, name: str = POLICY) -> dict[str, Tensor]:
        names = _names(network)
        return {key: tensor for key, tensor in network.state_dict().items() if key in names}

    def load_state(self, network: Network, state: Mapping[str, Tensor], name: str = POLICY) -> None:
        if odd := sorted(set(_names(network)) ^ set(state)):
            raise CheckpointError(f"the trained weights do not fit: {len(odd)} names differ, the first is {odd[0]}")
        network.load_state_dict(dict(state), strict=False)

    def save(
        self, family: ModelFamily, network: Network, folder: Path, state: Mapping[str, Tensor] | None = None
    ) -> None:
        family.save_network(network, folder, None if state is None else {**network.state_dict(), **state})


def _names(network: Network) -> frozenset[str]:
    return frozenset(getattr(network, KEPT))


def _matches(name: str, target: str) -> bool:
    return name.startswith(target) or fnmatchcase(name, target)

"""What is trained: one file a kind, a LoRA in the denoiser or the whole of it.

Adapter weights are float32 whatever the network's dtype, so that small updates are not lost. LoRA keys stay PEFT's, and
the saved file carries rank and alpha, so that plain diffusers loads it with the right scale.

A role may hold weights of the same kind as the policy's: a second LoRA in the same network, or a second network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.core.registry import Registry
from diffpref.models.base import ModelFamily, Network
from diffpref.models.gates import Manager

__all__ = ["POLICY", "Adapter", "Held", "registry"]

POLICY = "default"
"""The name of the policy's weights among those that a network holds; PEFT's own."""


@dataclass(frozen=True)
class Held:
    """Where the weights of a role lie.

    Args:
        network: that answers with them.
        name: of the weights within the network.
        gate: makes the context in which the network answers with them.
    """

    network: Network
    name: str = POLICY
    gate: Manager = nullcontext


@dataclass(frozen=True)
class Adapter(ABC):
    """How a network becomes trainable, and how what was trained is saved.

    Args:
        rank: of the low-rank update.
        alpha: the update is scaled by alpha / rank; None means alpha = rank.
        targets: names of the layers to adapt; None takes the family's.
        start: LoRA that the policy starts from; its rank, alpha and layers are then the policy's.
        dora: whether the low-rank update turns the weights and a vector of its own scales them (arXiv:2402.09353).
    """

    rank: int = 8
    alpha: float | None = None
    targets: Sequence[str] | None = None
    start: str | None = None
    dora: bool = False

    has_base: ClassVar[bool]
    folder: ClassVar[str]

    @abstractmethod
    def install(self, family: ModelFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        """Make the family's network trainable in place; return named parameter groups."""

    @contextmanager
    def off(self, network: Network) -> Iterator[None]:
        """Run the network as it was before training, for the duration of the context."""
        raise ConfigError("role source 'base' needs an adapter that can be switched off; use source 'copy'")
        yield

    # ------------------------------------------------------------ further weights of the policy's kind

    @abstractmethod
    def copy(self, family: ModelFamily, name: str) -> Held:
        """Return frozen weights that are equal to the policy's as it is now."""

    def fresh(self, family: ModelFamily, name: str, random: Random) -> Held:
        """Return frozen weights of the policy's shape with a start of their own, at which nothing is adapted."""
        raise ConfigError("source: 'adapter' needs adapter.kind lora; use source 'copy'")

    @abstractmethod
    def parameters(self, held: Held) -> list[nn.Parameter]:
        """Return the parameters of a role's weights."""

    # ------------------------------------------------------------ what is trained

    @abstractmethod
    def state(self, network: Network, name: str = POLICY) -> dict[str, Tensor]:
        """Return what is trained, by name: the tensors themselves, not copies."""

    def unadapted(self, network: Network) -> dict[str, Tensor]:
        """Return the weights of the network that belong to no adapter, by name."""
        return {name: t for name, t in network.state_dict().items() if not self.is_adapted(name)}

    @staticmethod
    def is_adapted(name: str) -> bool:
        """Whether a parameter of the network belongs to an adapter in it."""
        return False

    @abstractmethod
    def load_state(self, network: Network, state: Mapping[str, Tensor], name: str = POLICY) -> None:
        """Put back what `state` returned."""

    @abstractmethod
    def save(
        self, family: ModelFamily, network: Network, folder: Path, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the result in the format of the model's libraries.

        Args:
            family: of the network.
            network: as it was trained.
            folder: to fill.
            state: what `state` returns, gathered where the network is sharded over processes.
        """


registry: Registry[type[Adapter]] = Registry("adapter", "diffpref.models.adapters", lazy=True)

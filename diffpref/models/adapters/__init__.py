"""What is trained: one file a kind, a LoRA in the denoiser or the whole of it.

Adapter weights are float32 whatever the network's dtype, so that small updates are not lost. LoRA keys stay PEFT's, and
the saved file carries rank and alpha, so that plain diffusers loads it with the right scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.core.registry import Registry
from diffpref.models.family import DenoiserFamily, Network

__all__ = ["Adapter", "registry"]


@dataclass(frozen=True)
class Adapter(ABC):
    """How a network becomes trainable, and how what was trained is saved.

    Args:
        rank: of the low-rank update.
        alpha: the update is scaled by alpha / rank; None means alpha = rank.
        targets: names of the layers to adapt; None takes the family's.
    """

    rank: int = 8
    alpha: float | None = None
    targets: Sequence[str] | None = None

    has_base: ClassVar[bool]
    folder: ClassVar[str]

    @abstractmethod
    def install(self, family: DenoiserFamily, random: Random) -> dict[str, list[nn.Parameter]]:
        """Make the family's network trainable in place; return named parameter groups."""

    @contextmanager
    def off(self, network: Network) -> Iterator[None]:
        """Run the network as it was before training, for the duration of the context."""
        raise ConfigError("role source 'base' needs an adapter that can be switched off; use source 'copy'")
        yield

    @abstractmethod
    def state(self, network: Network) -> dict[str, Tensor]:
        """Return what is trained, by name."""

    @abstractmethod
    def load_state(self, network: Network, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""

    @abstractmethod
    def save(self, family: DenoiserFamily, network: Network, folder: Path) -> None:
        """Write the result in diffusers' format."""


registry: Registry[type[Adapter]] = Registry("adapter", "diffpref.models.adapters", lazy=True)

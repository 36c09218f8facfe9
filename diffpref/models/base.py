"""What every family of models promises to the training loop, whatever its models make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from diffpref.core.contracts import Rows

__all__ = ["ModelFamily", "Network"]

Network: TypeAlias = Any
"""A model of diffusers or transformers; a type checker that is told nn.Module takes its methods for tensors."""


class ModelFamily(ABC):
    """Networks of one kind. It knows no objective and no method.

    ``likelihood`` is the registry name of what reads its answers; it also chooses how records become batches
    (`diffpref.training.encoders`). It is known without loading anything.
    """

    name: ClassVar[str]
    likelihood: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]

    path: str
    network: Network

    @classmethod
    @abstractmethod
    def load(
        cls,
        path: str,
        *,
        parts: Sequence[str] = ...,
        precision: str = ...,
        revision: str | None = ...,
        variant: str | None = ...,
        allow_pickle: bool = ...,
    ) -> ModelFamily:
        """Load the asked parts; ``"network"`` is the one that is trained.

        Raises:
            ModelError: the path holds no such model, or only pickled weights.
        """

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int = 0) -> ModelFamily:
        """Return real classes with random weights at toy size, for tests."""

    @abstractmethod
    def to(self, device: torch.device | str) -> ModelFamily:
        """Move every loaded part to a device."""

    @abstractmethod
    def answer(self, network: Network, rows: Rows) -> dict[str, Tensor]:
        """Ask a network: (N, ...) tensors that the likelihood reads, ``prediction`` for a denoiser."""

    @staticmethod
    @abstractmethod
    def blocks(network: Network) -> list[nn.Module]:
        """Return the repeated blocks: what to shard, to checkpoint, to compile."""

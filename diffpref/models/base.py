"""What every model family promises, whatever it generates; the trainer, roles and adapters ask for no more.

A family knows how to load its networks, how to ask them, and how what was trained is written for others to load. It
knows no objective and no method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models.heads import save_heads

if TYPE_CHECKING:  # networks are used where no recipe is read
    from diffpref.config import Likelihood as LikelihoodSettings
    from diffpref.config import Scorer

__all__ = ["ModelFamily", "Network"]

Network: TypeAlias = Any
"""A model of diffusers or transformers; a type checker that is told nn.Module takes its methods for tensors."""


class ModelFamily(ABC):
    """Networks of one kind. Parts that were not asked for are None.

    ``path`` is where they come from, ``network`` what is trained, ``revision`` the commit, tag or branch on a hub.
    """

    path: str
    network: Network
    revision: str | None

    name: ClassVar[str]
    likelihood: ClassVar[str]
    """Registry name of what reads its answers; it also chooses how records become batches
    (`diffpref.training.encoders`). It is known without loading anything."""

    heads: Any = None
    """Small modules that are trained beside the policy, where an objective names what they say."""
    even: bool = False
    """Whether every forward of a run is to have one shape."""
    samples: ClassVar[str]
    """What a sample is called: ``"images"``."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """What its likelihood gives of other families and not of this one, and why: ``segment_errors``."""
    hub: ClassVar[Mapping[str, str]]
    """What a model card says of the kind of model: ``library_name`` and ``pipeline_tag``."""

    @property
    @abstractmethod
    def lora_targets(self) -> Sequence[str]:
        """Names of the layers that a LoRA adapts unless a recipe names others."""

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
    def answer(
        self, network: Network, rows: Rows, wanted: frozenset[str] = frozenset(), trained: bool = False
    ) -> dict[str, Tensor]:
        """Ask a network; return what the likelihood reads.

        Args:
            network: may be wrapped for several processes.
            rows: the question.
            wanted: quantities that the objectives name, where the answer depends on it.
            trained: whether the role that asks is trained, and so has the heads that are.
        """

    def settle_length(self, max_sequence_length: int) -> None:
        """Take another number of tokens of a long text encoder than the pipeline's usual.

        Raises:
            ConfigError: the family has no such encoder.
        """
        raise ConfigError(f"model.max_sequence_length: '{self.name}' has no T5 whose prompts could be longer; leave it")

    def settle_path(self, settings: LikelihoodSettings, resolution: int | None) -> None:  # noqa: B027 - most have no path
        """Fix where training draws timesteps, and the noise schedule where that depends on the size of pictures.

        Args:
            settings: the recipe's.
            resolution: of the pictures, pixels; None: the model's own.
        """

    def settle(self, wanted: frozenset[str], scorer: Scorer, random: Random, size: int = 1) -> ModelFamily:
        """Make what a recipe decides, before anything is adapted, and return the family; most have nothing to make.

        Args:
            wanted: quantities that the objectives name of the policy.
            scorer: the recipe's section.
            random: draws the start of what is new.
            size: numbers of several scores, or of an embedding.

        Raises:
            ConfigError: the family cannot be what the recipe asks.
        """
        return self

    def place(self, timesteps: Tensor) -> Tensor:
        """Return where timesteps lie between clean data, 0, and noise, 1, for denoisers."""
        return timesteps

    def after_update(self) -> None:
        """Bring weights back to where they may be; those of most families may be anywhere."""
        return

    def install_heads(self, wanted: frozenset[str], start: str | None = None, size: int = 1) -> list[nn.Parameter]:
        """Add the heads that say what is wanted of the policy; return their parameters, none where none is wanted.

        Args:
            wanted: quantities that the objectives name.
            start: folder of heads to begin with.
            size: numbers of a row's logits or embedding.

        Raises:
            ConfigError: ``start`` holds other heads.
        """
        if start is not None:
            raise ConfigError("adapter.heads: are a language model's; leave it out")
        return []

    def save_heads(self, folder: Path) -> None:
        """Write `heads` into a folder."""
        save_heads(self.heads, folder)

    def asked(self, network: Network) -> Network:
        """Return what is to be wrapped for several processes: the module whose forward `answer` calls."""
        return network

    @staticmethod
    @abstractmethod
    def blocks(network: Network) -> list[nn.Module]:
        """Return the repeated blocks: what to shard, to checkpoint, to compile."""

    @abstractmethod
    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        """Choose what is recomputed in the backward pass; see `diffpref.models.recompute`."""

    # ------------------------------------------------------------ what was trained

    @abstractmethod
    def add_lora(self, network: Network, config: Any, name: str) -> None:
        """Add a LoRA of PEFT's settings to a network, as PEFT draws it.

        Raises:
            ValueError: the network has no layers of the names to adapt.
        """

    @abstractmethod
    def read_lora(self, network: Network, path: str, name: str) -> int:
        """Add a LoRA to a network under a name; return how many numbers its file holds.

        Raises:
            ModelError: it is no LoRA for this network.
        """

    @abstractmethod
    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        """Write a LoRA so that the libraries load it without us.

        Args:
            folder: to fill.
            state: weights by PEFT's names.
            settings: of PEFT's LoraConfig, with sets in order.
        """

    @abstractmethod
    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        """Write a whole network so that the libraries load it without us.

        Args:
            network: of the family.
            folder: to fill.
            state: its weights, whole, where they are spread over processes; None: its own.
        """

    @abstractmethod
    def apply(self, path: str, lora: bool) -> None:
        """Put a result into the network, as the libraries do.

        Args:
            path: folder of a LoRA or of whole weights.
            lora: which of them.
        """

    @abstractmethod
    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        """Write the whole model for the libraries, with what was applied folded into its weights.

        Args:
            folder: to fill.
            dtype: of the weights written.
            lora: whether what was applied is a LoRA.
        """

    @classmethod
    @abstractmethod
    def usage(cls, load: str, folder: str) -> str:
        """Return lines of Python that load the result with the libraries alone.

        Args:
            load: the base model, as an argument of ``from_pretrained``.
            folder: of the result: ``"lora"`` or a folder of whole weights.
        """

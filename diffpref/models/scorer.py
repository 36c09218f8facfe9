"""Reward models of pictures and clips: what families of them have in common.

A scorer reads an item, a picture or the frames of a clip, and a prompt; its answer is a score and whatever else an
objective names. How a run shapes it is the recipe's section ``scorer``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from diffpref.config import Scorer
from diffpref.core.assets import resolve
from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models.base import ModelFamily
from diffpref.models.clip_towers import Towers, load_network, load_words, read_settings
from diffpref.models.precision import DTYPES
from diffpref.models.reward_head import SAYS, HeadShape, RewardHead, save_reward_head

__all__ = ["ScorerFamily"]


@dataclass
class ScorerFamily(ModelFamily):
    """A CLIP dual encoder of transformers and what scores with it.

    Args:
        path: where the towers come from.
        network: what is trained.
        towers: tokenizer and image processor, with the encoders where they were asked for.
        revision: commit, tag or branch on the hub.
        heads: beside the network.
        scorer: the recipe's section.
        width: of the features of the towers.
        random: draws the start of a head.
    """

    path: str
    network: Any = None
    towers: Towers | None = None
    revision: str | None = None
    heads: RewardHead | None = None
    scorer: Scorer = field(default_factory=Scorer)
    width: int = 0
    random: Random = field(default_factory=lambda: Random(0))

    likelihood: ClassVar[str] = "score"
    samples: ClassVar[str] = "images"
    hub: ClassVar[Mapping[str, str]] = {
        "library_name": "transformers",
        "pipeline_tag": "zero-shot-image-classification",
    }

    encodes_once: ClassVar[bool] = False
    """Whether items and prompts become features before the first step, because the towers are not trained."""

    def settle(self, wanted: frozenset[str], scorer: Scorer, random: Random, size: int = 1) -> ScorerFamily:
        self.scorer, self.random = scorer, random
        return self

    def save_heads(self, folder: Path) -> None:
        if self.heads is not None:
            save_reward_head(self.heads, folder)

    def head_shape(self, wanted: frozenset[str], size: int) -> HeadShape:
        """Return the shape of the head that a recipe asks for."""
        scorer = self.scorer
        hidden = () if scorer.head == "linear" else scorer.hidden
        return HeadShape.of(self.width, wanted & {*SAYS}, scorer.reads, hidden, scorer.activation, size)

    @abstractmethod
    def encode_media(self, items: Sequence[Sequence[Image.Image]]) -> Tensor:
        """Return a row for each item, a picture or the frames of a clip, as `answer` is fed them; all of one shape."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Return a row for each prompt; equal prompts give equal rows whatever stands beside them."""

    @property
    def told(self) -> Towers:
        """Tokenizer and image processor.

        Raises:
            ConfigError: they were not loaded.
        """
        if self.towers is None:
            raise ConfigError("the family's 'text' is not loaded; load it with parts=(..., 'text')")
        return self.towers

    @classmethod
    def load(
        cls,
        path: str,
        *,
        parts: Sequence[str] = ("network", "text"),
        precision: str = "fp32",
        revision: str | None = None,
        variant: str | None = None,
        allow_pickle: bool = False,
    ) -> ScorerFamily:
        """Load the asked parts.

        Args:
            path: folder or hub id of a ``CLIPModel``.
            parts: of ``"network"``, ``"text"`` (tokenizer and image processor) and ``"towers"`` (with the encoders).
            precision: ``fp32``, ``bf16`` or ``fp16``: the dtype of the encoders.
            revision: branch, tag or commit on the hub.
            variant: weight variant.
            allow_pickle: also accept pickled weights.

        Raises:
            ModelError: no CLIP model of transformers lies there, or only pickled weights.
        """
        where = resolve(path)
        settings = read_settings(where, revision)
        family = cls(path, revision=revision, width=settings["projection_dim"])
        weights: dict[str, Any] = {"revision": revision, "variant": variant, "allow_pickle": allow_pickle}
        if {"text", "towers"} & set(parts):
            family.towers = load_words(where, revision)
        if family.towers is not None and "towers" in parts:
            family.towers.model = load_network(where, dtype=DTYPES[precision], **weights)
        if "network" in parts:
            family.network = family.load_network(where, precision, **weights)
        return family

    def load_network(self, path: str, precision: str, **options: Any) -> Any:
        """Return what is trained, frozen; None where it is made by `settle`."""
        return None

    def to(self, device: torch.device | str) -> ScorerFamily:
        if self.network is not None:
            self.network.to(device)
        if self.towers is not None and self.towers.model is not None:
            self.towers.model.to(device)
        return self

    def set_checkpointing(self, network: Any, level: bool | str) -> None:
        if level:
            raise ConfigError(f"model.gradient_checkpointing: family '{self.name}' has none; leave it out")

"""A small head on the frozen towers of a CLIP model: a reward model that trains on a CPU.

The towers run once, before the first step; what is trained and saved is the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from diffpref.config import Scorer
from diffpref.core.contracts import Conditioning, Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.models.base import Network
from diffpref.models.clip_towers import image_features, text_features
from diffpref.models.reward_head import RewardHead, load_reward_head, save_reward_head
from diffpref.models.scorer import ScorerFamily

__all__ = ["HeadScorer"]


@registry.register("head_scorer")
@dataclass
class HeadScorer(ScorerFamily):
    """The network is the head; the towers are not part of it."""

    name: ClassVar[str] = "head_scorer"
    encodes_once: ClassVar[bool] = True

    def settle(self, wanted: frozenset[str], scorer: Scorer, random: Random, size: int = 1) -> HeadScorer:
        super().settle(wanted, scorer, random, size)
        if scorer.head == "cosine":
            raise ConfigError(
                "scorer.head: the cosine of frozen towers has nothing to train; take linear or mlp, or model.family"
                " clip_scorer"
            )
        self.network = RewardHead(self.head_shape(wanted, size), random).requires_grad_(False).eval()
        return self

    @classmethod
    def tiny(cls, seed: int = 0) -> HeadScorer:
        from diffpref.models.tiny import tiny_clip

        towers, model = tiny_clip(seed)
        towers.model = model
        family = cls("tiny", towers=towers, width=model.config.projection_dim)
        family.settle(frozenset({"score"}), Scorer(), Random(seed))
        return family

    def install_heads(self, wanted: frozenset[str], start: str | None = None, size: int = 1) -> list[nn.Parameter]:
        if start is not None:
            self.network.load_state_dict(load_reward_head(start, self.network.shape).state_dict())
        return []

    # ------------------------------------------------------------ asking

    @property
    def model(self) -> Any:
        """The frozen encoders."""
        if self.told.model is None:
            raise ConfigError("the family's 'towers' are not loaded; load them with parts=(..., 'towers')")
        return self.told.model

    @torch.no_grad()
    def encode_media(self, items: Sequence[Sequence[Image.Image]]) -> Tensor:
        return image_features(self.model, self.told.pixels(items).to(self.model.device)).cpu()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        ids, mask = (tensor.to(self.model.device) for tensor in self.told.tokens(prompts))
        return Conditioning({"text": text_features(self.model, ids, mask).cpu()})

    def answer(
        self, network: Network, rows: Rows, wanted: frozenset[str] = frozenset(), trained: bool = False
    ) -> dict[str, Tensor]:
        return dict(network(rows.inputs["media"], rows.conditioning.tensors["text"]))

    @property
    def lora_targets(self) -> list[str]:
        raise ConfigError("adapter.kind: a head is trained as a whole; set it to full")

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        return list(network.layers)

    # ------------------------------------------------------------ what was trained

    def add_lora(self, network: Network, config: Any, name: str) -> None:
        raise ValueError("a head is trained as a whole; set adapter.kind to full")

    def read_lora(self, network: Network, path: str, name: str) -> int:
        raise ValueError("a head is trained as a whole; set adapter.kind to full")

    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        raise ConfigError("adapter.kind: a head is trained as a whole; set it to full")

    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        if state is not None:
            network.load_state_dict(dict(state))
        save_reward_head(network, folder)

    def apply(self, path: str, lora: bool) -> None:
        self.network = load_reward_head(path).requires_grad_(False).eval()

    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        self.save_network(self.network, folder, None)

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        return 'from diffpref import rewards\n\nreward = rewards.load("trained", ".")'

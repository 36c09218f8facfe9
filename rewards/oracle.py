"""The oracle of the shapes world as a reward: how many facts of the caption a picture shows. No one trains on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import to_uint8
from diffpref.rewards import registry
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.shapes.grammar import Caption
from diffpref.shapes.oracle import FACTS, num_facts_right
from diffpref.shapes.render import SIZE

__all__ = ["Oracle", "load_oracle"]


class Oracle:
    """Counts facts.

    Args:
        output: ``"facts"``: 0..6; ``"all"``: 1 where all six hold, else 0.
    """

    def __init__(self, output: Literal["facts", "all"] = "facts") -> None:
        self.output = output

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        high = float(len(FACTS)) if self.output == "facts" else 1.0
        return RewardInfo(name="oracle", version=f"1+{self.output}", licence="Apache-2.0", range=(0.0, high))

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N pictures of 64 x 64 pixels and N captions of the shapes world.

        Raises:
            ShapeError: not as many captions as pictures.
            DataError: a picture of another size, or a prompt that is no caption of the shapes world.
        """
        check_lengths("oracle", media, prompts)
        counts = torch.tensor(
            [self._count(item, prompt) for item, prompt in zip(as_pictures("oracle", media), prompts, strict=True)]
        )
        return (counts if self.output == "facts" else counts == len(FACTS)).float()

    @staticmethod
    def _count(item: Media, prompt: str) -> int:
        picture = to_uint8(item)
        if picture.shape[:2] != (SIZE, SIZE):
            raise DataError(f"the oracle reads pictures of {SIZE} x {SIZE} pixels, got {picture.shape[:2]}")
        return num_facts_right(picture, Caption.parse(prompt))


@registry.register("oracle")
def load_oracle(path: str | None = None, *, output: Literal["facts", "all"] = "facts") -> Reward:
    """Return the oracle; it has no weights.

    Raises:
        ConfigError: a path is given.
    """
    if path is not None:
        raise ConfigError(f"reward 'oracle' has no weights and takes no path, got '{path}'")
    return Oracle(output)

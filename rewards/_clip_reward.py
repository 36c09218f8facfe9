"""The reward that clip, pickscore and hps are: a dual encoder's cosine, on the scale that a paper prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from diffpref.core.contracts import Media, RewardInfo
from diffpref.rewards._dual_encoder import DualEncoder, cosines, image_directions, tensor_cosines

__all__ = ["DualEncoderReward"]


class DualEncoderReward:
    """Scores an image by the scaled cosine with its prompt.

    Args:
        info: what it says of itself.
        encoder: the model.
        scale: (N,) cosines and the prompts -> (N,) scores.
        micro_batch: images that run at once.
    """

    def __init__(
        self,
        info: RewardInfo,
        encoder: DualEncoder,
        scale: Callable[[Tensor, Sequence[str]], Tensor],
        micro_batch: int = 16,
    ) -> None:
        info = info if info.preprocessing else replace(info, preprocessing=encoder.framing.name)
        self._info, self.encoder, self._scale, self.micro_batch = info, encoder, scale, micro_batch

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N images and N prompts.

        Raises:
            ShapeError: not as many prompts as images.
            DataError: an item is not an image.
        """
        return self._scale(cosines(self._info.name, self.encoder, media, prompts, self.micro_batch), prompts)

    def embed_images(self, media: Sequence[Media]) -> Tensor:
        """Return (N, D) float32 on the CPU, each of norm 1: where the model places N images.

        Raises:
            DataError: an item is not an image.
        """
        return image_directions(self._info.name, self.encoder, media, self.micro_batch)

    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1]."""
        return self._scale(tensor_cosines(self._info.name, self.encoder, pixels, prompts, self.micro_batch), prompts)

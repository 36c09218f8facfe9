"""Rewards around a reward: what the inner one can do, the outer one can do too, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo

__all__ = ["Wrapper", "wrap"]

OPTIONAL = ("compare", "embed_images", "score_aspects", "score_tensors")
"""What a reward may offer besides ``score``: a `Wrapper` has each as a private method of that name."""

W = TypeVar("W", bound="Wrapper")


class Wrapper:
    """Hands every question on; subclasses change what they are there for. Made by `wrap`.

    Args:
        inner: the reward inside.
    """

    def __init__(self, inner: Reward) -> None:
        self.inner: Any = inner

    @property
    def info(self) -> RewardInfo:
        """What the inner reward says of itself."""
        info: RewardInfo = self.inner.info
        return info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N items and N prompts."""
        scores: Tensor = self.inner.score(media, prompts, metadata)
        return scores

    def _score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = self.inner.score_aspects(media, prompts, metadata)
        return scores

    def _score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        scores: Tensor = self.inner.score_tensors(pixels, prompts)
        return scores

    def _embed_images(self, media: Sequence[Media]) -> Tensor:
        embeds: Tensor = self.inner.embed_images(media)
        return embeds

    def _compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        wins: Tensor = self.inner.compare(first, second, prompts)
        return wins


def wrap(kind: type[W], inner: Reward, *args: Any, **options: Any) -> W:
    """Return ``kind(inner, *args, **options)`` with those optional methods, and only those, that ``inner`` has.

    What a reward can do is asked with ``hasattr`` and ``isinstance`` (`Judge`, `AspectReward`), so that a method which
    is there but cannot answer would be a lie.
    """
    there = {name: getattr(kind, f"_{name}") for name in OPTIONAL if hasattr(inner, name)}
    return type(kind.__name__, (kind,), there)(inner, *args, **options)

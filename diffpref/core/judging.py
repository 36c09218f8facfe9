"""The contracts of what judges: rewards score one item at a time, judges compare two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from diffpref.core.media import Media

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AspectReward", "ImageEmbedder", "Judge", "MediaKind", "Reward", "RewardInfo"]

MediaKind: TypeAlias = Literal["image", "video", "audio", "text"]


@dataclass(frozen=True)
class RewardInfo:
    """What a reward says of itself.

    Args:
        name: registry name.
        version: part of every cache key.
        licence: of the weights.
        range: typical smallest and largest value.
        pair_scale: s such that P(a better than b) = sigmoid(s * (score_a - score_b)); None where undefined.
        needs_prompt: whether the prompt matters.
        needs_metadata: whether ``score`` reads ``metadata``, such as the objects that a picture should show.
        differentiable: whether ``score_tensors`` exists.
        media: the kind of items that it scores.
        also: other kinds that it scores as well.
        preprocessing: names how items are framed before the model sees them; part of every cache key.
        aspects: names of what ``score_aspects`` tells apart; empty where there is one score only.
        itemwise: whether a score is of its item alone; False for shares of a call, which nobody can keep or compare.
    """

    name: str
    version: str
    licence: str
    range: tuple[float, float]
    pair_scale: float | None = None
    needs_prompt: bool = True
    needs_metadata: bool = False
    differentiable: bool = False
    media: MediaKind = "image"
    also: tuple[MediaKind, ...] = ()
    preprocessing: str = ""
    aspects: tuple[str, ...] = ()
    itemwise: bool = True

    def takes(self, kind: MediaKind) -> bool:
        """Whether items of a kind can be scored."""
        return kind == self.media or kind in self.also


@runtime_checkable
class Reward(Protocol):
    """Scores media: higher is better; each item alone, independent of the batch."""

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        ...

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N items and N prompts; NaN where an answer could not be read."""
        ...


@runtime_checkable
class AspectReward(Reward, Protocol):
    """A reward that also scores each aspect by itself; ``score`` is its overall verdict."""

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each of ``info.aspects``."""
        ...


@runtime_checkable
class ImageEmbedder(Reward, Protocol):
    """A reward whose model also places pictures in a space where near means alike: for distances between sets."""

    def embed_images(self, media: Sequence[Media]) -> Tensor:
        """Return (N, D) float32 on the CPU, each of norm 1, for N pictures; independent of the batch."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Says which of two answers is the better one. It may like a place: who asks, asks in both orders."""

    def compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) P(first is better than second) for N pairs and N prompts; NaN where an answer is unreadable."""
        ...

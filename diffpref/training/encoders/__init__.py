"""How records become tensors: one file a kind of model, named as the likelihood that reads its answers.

`diffpref.training.batches` decides which candidates a step shows and with which labels; an encoder makes of them what
a model of its kind is fed. A new kind is one file here, or in another distribution (entry-point group
``diffpref.training.encoders``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import torch

from diffpref.config import Recipe
from diffpref.core.contracts import Batch, Record
from diffpref.core.randomness import Random
from diffpref.core.registry import Registry
from diffpref.data import Item
from diffpref.data.clips import Check

__all__ = ["Encoder", "Key", "Place", "Shown", "registry"]

Key: TypeAlias = tuple[str, int]
"""Of a record's draws: its item's key, and the visit."""


class Place(NamedTuple):
    """Where a candidate lies.

    Args:
        record: position of its record in the source.
        record_id: of its record.
        candidate: its position in the record.
    """

    record: int
    record_id: str
    candidate: int


Shown: TypeAlias = Mapping[str, Sequence[Sequence[Place | None]]]
"""Group -> B times the one candidate of a record; for ``list`` its K, with None where a list is shorter."""


class Encoder(Protocol):
    """Makes batches of one kind of model. Everything that can be prepared once is prepared by `encode`."""

    texts: ClassVar[bool]
    """Whether a source's columns are read as texts, and not as pictures."""
    even: bool
    """Whether all batches have one shape, so that models are to keep it."""

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        records: Sequence[Record],
        random: Random,
        device: torch.device,
        names: Sequence[str] = (),
    ) -> Encoder:
        """Return the encoder of a run, with whatever models it needs loaded.

        Args:
            recipe: of the run.
            records: of its source.
            random: of the run.
            device: where batches go, and where encoders run.
            names: what the likelihood will be asked, by vocabulary name.
        """
        ...

    @classmethod
    def check(cls, recipe: Recipe) -> Check:
        """Return what refuses a candidate that models of this kind cannot be shown, before any is loaded."""
        ...

    def usable(self, items: Sequence[Item], groups: Sequence[str]) -> Sequence[Item]:
        """Return the items that can be put before the model as the recipe wants it; the others are counted and told.

        Raises:
            DataError: an item cannot, and the recipe does not say that it be left out.
        """
        ...

    def encode(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        """Prepare what the batches of items need: candidates of these groups, and prompts.

        Raises:
            DataError: an item cannot be put before the model: an empty completion, a prompt that is too long.
        """
        ...

    def release(self) -> None:
        """Drop the models that only `encode` needs."""
        ...

    def content(self, place: Place) -> str:
        """Return a digest of a candidate's content."""
        ...

    def batch(self, keys: Sequence[Key], items: Sequence[Item], shown: Shown) -> Batch:
        """Return B records as tensors, without the data's columns; columns of the encoder's own may be there.

        ``media[group]`` has a row a record, (B, K, ...) for ``list`` with zeros where a list is shorter. Records are
        not read here: they hold whole files.

        Args:
            keys: of the draws of each record.
            items: one each.
            shown: what is put before the model; the prompt is the item's even where the candidate is another record's.
        """
        ...


registry: Registry[type[Encoder]] = Registry("encoder", "diffpref.training.encoders", lazy=True)

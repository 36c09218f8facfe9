"""From records to batches: the view's items, the sampler's order, companions, and the columns of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Tensors
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import (
    ATTACHED,
    COMPANIONS,
    VIEWS,
    BalancedSampler,
    Item,
    KeyedSampler,
    Prompt,
    given_columns,
)
from diffpref.training.encoders import Encoder, Key, Place, Shown

__all__ = ["Batches"]

LABELS = ("preference", "weight")
"""Columns that are handed on whenever the data give them; others when something asks for them."""
TRIES = 1000
"""Draws of a companion before it is given up."""


class Batches:
    """Micro-batches of a view's items.

    Args:
        items: of the source.
        encoder: makes tensors of candidates and prompts.
        random: of the run.
        device: where batches go.
        groups: what is put before the models; other groups of an item are neither encoded nor read.
        columns: what objective and method ask of the data.
        slots: draws that a record sees in all, one after another; 0: a new one at each visit.
        positive_share: draw with replacement, so many of the items being good; None: each once, then again.
    """

    def __init__(
        self,
        items: Sequence[Item],
        encoder: Encoder,
        random: Random,
        device: torch.device,
        groups: Sequence[str],
        columns: frozenset[str] = frozenset(),
        slots: int = 0,
        positive_share: float | None = None,
    ) -> None:
        self.items, self.encoder, self.random, self.device = items, encoder, random, device
        self.groups, self.slots = tuple(groups), slots
        self.sampler = KeyedSampler(len(items), random.seed)
        if positive_share is not None:
            labels = [item.columns.get("label") == 1.0 for item in items]
            self.sampler = BalancedSampler(labels, positive_share, random.seed)
        self.columns = given_columns(items) & (columns | set(LABELS))
        self.length = max((len(_several(item.groups["list"])) for item in items if "list" in item.groups), default=1)

    @property
    def view(self) -> str:
        """The name of the view that the items are of."""
        return next(view for view, held in VIEWS.items() if set(held) <= set(self.items[0].groups))

    @property
    def samples(self) -> int:
        """How many samples of a record are put before the models."""
        return sum(self.length if group == "list" else 1 for group in self.groups)

    @property
    def _held(self) -> tuple[str, ...]:
        """The groups of an item that are encoded: those that are shown, all where companions are drawn from them."""
        held, others = VIEWS[self.view], tuple(group for group in self.groups if group in ATTACHED)
        if set(self.groups) & set(COMPANIONS):
            return (*held, *others)
        return (*(group for group in held if group in self.groups), *others)

    def encode(self) -> None:
        """Prepare what batches are made of.

        Raises:
            DataError: an item cannot be put before the model.
        """
        self.encoder.encode(self.items, self._held)

    def digest(self) -> dict[str, Any]:
        """Return how many items there are, and a digest of all that they are: their order, labels and content."""
        seen = hashlib.blake2b(digest_size=16)
        asked = {*LABELS, *self.columns}
        for item in self.items:
            places = [place for group in self._held for place in _places(item, group)]
            told = [value for name, value in item.columns.items() if name in asked]
            values: list[Any] = [item.key, item.record_id, item.prompt, *told, *map(self.encoder.content, places)]
            values += [dict(item.captions)] if item.captions else []
            seen.update(json.dumps(values).encode() + b"\n")
        return {self.view: len(self.items), "content": seen.hexdigest()}

    def keys(self, items: Sequence[tuple[int, int]]) -> tuple[Key, ...]:
        """Return what the random draws of (item number, visit) are keyed by."""
        return tuple((self.items[index].key, visit % self.slots if self.slots else visit) for index, visit in items)

    def batch(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of (item number, visit) each."""
        if not items:
            raise DataError("an empty batch was asked for")
        chosen, keys = [self.items[index] for index, _ in items], self.keys(items)
        shown: dict[str, Sequence[Sequence[Place | None]]] = {}
        for group in self.groups:
            if group in COMPANIONS:
                shown[group] = [[self._companion(group, item, key)] for item, key in zip(chosen, keys, strict=True)]
            else:
                shown[group] = [self._padded(_places(item, group), group) for item in chosen]
        made = self.encoder.batch(keys, chosen, shown)
        return replace(
            made,
            columns={**made.columns, **self._columns(chosen, shown, made.columns)},
            prompts=tuple(item.prompt for item in chosen),
            metadata=tuple(item.meta for item in chosen if isinstance(item, Prompt)),
        )

    def _padded(self, places: Sequence[Place], group: str) -> Sequence[Place | None]:
        return [*places, *[None] * (self.length - len(places))] if group == "list" else places

    def _columns(self, items: Sequence[Item], shown: Shown, besides: Tensors) -> dict[str, Tensor]:
        """Return the data's columns, (B,) or (B, K), a missing candidate with the value 0 and a rank below the last;
        not those that the encoder made of them.
        """
        columns = {}
        for name in sorted(self.columns - besides.keys()):
            pad = self.length if name == "ranks" else 0.0
            values = [_filled(item.columns[name], self.length, pad) for item in items]
            columns[name] = torch.tensor(values, device=self.device)
        if "list" in shown:
            there = [[float(place is not None) for place in places] for places in shown["list"]]
            columns["list_mask"] = torch.tensor(there, device=self.device)
        return columns

    def _companion(self, group: str, item: Item, key: Key) -> Place:
        """Return a candidate of another record, drawn by key from all items, never from the batch's neighbour.

        Raises:
            DataError: there is no other record.
        """
        draw = self.random.numpy(f"companion, {group}", *key)
        for _ in range(TRIES):
            other = self.items[int(draw.integers(len(self.items)))]
            if other.record_index != item.record_index:
                places = [place for held in self._held for place in _places(other, held)]
                return places[int(draw.integers(len(places)))]
        raise DataError(
            f"the objective asks for '{group}' samples, answers to another prompt, and nearly all data are of record"
            f" {item.record_id!r}; give more records"
        )


def _several(candidates: int | tuple[int, ...]) -> tuple[int, ...]:
    return (candidates,) if isinstance(candidates, int) else candidates


def _places(item: Item, group: str) -> list[Place]:
    return [Place(item.record_index, item.record_id, number) for number in _several(item.groups[group])]


def _filled(value: Any, length: int, pad: float) -> Any:
    return [*value, *[pad] * (length - len(value))] if isinstance(value, tuple) else value

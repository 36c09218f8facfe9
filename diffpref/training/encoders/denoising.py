"""For denoisers: images as latents, captions as embeddings, both from the cache that the encoding pass fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffpref.cache import EncodedCache
from diffpref.config import Data, Recipe
from diffpref.core.contracts import Batch, Candidate, Conditioning, Record, Tensors
from diffpref.core.randomness import Random
from diffpref.data import COMPANIONS, Framing, Item, View
from diffpref.models import open_family
from diffpref.training.encoders import Key, Place, Shown, registry

__all__ = ["LatentEncoder", "framing_of"]

AT_ONCE = 128
"""Items whose images are in memory together while they are encoded."""


def framing_of(data: Data) -> Framing:
    """Return how a recipe wants its images cut."""
    return Framing(data.random_flip, data.random_crop, data.views, data.size_conditioning == "original")


@registry.register("denoising")
class LatentEncoder:
    """Latents are drawn from their posteriors by key; the views of an image belong to its record.

    Args:
        records: of the source.
        cache: where everything that `encode` names is encoded.
        random: of the run.
        device: where batches go.
        framing: how images are cut, and what is told of their sizes.
    """

    def __init__(
        self,
        records: Sequence[Record],
        cache: EncodedCache,
        random: Random,
        device: torch.device,
        framing: Framing | None = None,
    ) -> None:
        self.records, self.cache, self.random, self.device = records, cache, random, device
        self.framing = framing or Framing()
        self._known: dict[Place, Candidate] = {}
        self._empty: Conditioning | None = None

    texts: ClassVar[bool] = False
    even = True

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        records: Sequence[Record],
        random: Random,
        device: torch.device,
        names: Sequence[str] = (),
    ) -> LatentEncoder:
        encoders = open_family(recipe.model, "vae", "text").to(device)
        resolution = recipe.data.resolution or encoders.native_resolution()
        cache = EncodedCache(Path(recipe.data.cache or Path(recipe.output) / "cache"), encoders, resolution)
        return cls(records, cache, random, device, framing_of(recipe.data))

    def usable(self, items: Sequence[Item], groups: Sequence[str]) -> Sequence[Item]:
        return items

    def encode(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        for start in range(0, len(items), AT_ONCE):
            candidates, views = zip(*self._framed(items[start : start + AT_ONCE], groups), strict=True)
            self.cache.encode_images(candidates, views)
        captions = (text for item in items for text in (item.prompt, *item.captions.values()))
        self.cache.encode_captions(["", *dict.fromkeys(captions)])

    def release(self) -> None:
        self.cache.release()

    def _framed(self, items: Iterable[Item], groups: Sequence[str]) -> Iterator[tuple[Candidate, View]]:
        """Yield every image that may be shown, in each of its views."""
        for item in items:
            found = [number for group in groups for number in _several(item.groups[group])]
            numbers = [*found, 0] if self.framing.original_sizes else found
            shown = [self.records[item.record_index].candidates[number] for number in numbers]
            for view in self.framing.views(item.record_id, self.random):
                yield from ((candidate, view) for candidate in shown)

    def content(self, place: Place) -> str:
        return self._candidate(place).sha256

    def _candidate(self, place: Place) -> Candidate:
        """Return an image by its digest alone: a step need not read records, which hold whole files."""
        if place not in self._known:
            candidate = self.records[place.record].candidates[place.candidate]
            self._known[place] = Candidate(sha256=self.cache.digest(candidate))
        return self._known[place]

    def batch(self, keys: Sequence[Key], items: Sequence[Item], shown: Shown) -> Batch:
        if self._empty is None:
            self._empty = self.cache.conditioning([""]).to(self.device)
        views = [self._view(item.record_id, key) for item, key in zip(items, keys, strict=True)]
        media = {group: self._latents(group, keys, places) for group, places in shown.items()}
        sizes = None
        if self.framing.original_sizes:
            first = [self._candidate(Place(item.record_index, item.record_id, 0)) for item in items]
            sizes = self.cache.size_conditioning(first, views)
        texts = {"": [item.prompt for item in items]}
        texts |= {group: [item.captions[group] for item in items] for group in items[0].captions}
        conditioning = {group: self._told(several, sizes) for group, several in texts.items()}
        return Batch(tuple(keys), media, conditioning, {}, self._empty)

    def _told(self, texts: Sequence[str], sizes: Tensors | None) -> Conditioning:
        """Return a row for each caption, with the record's sizes in it where they are told."""
        conditioning = self.cache.conditioning(texts)
        return (conditioning if sizes is None else conditioning.replace(sizes)).to(self.device)

    def _view(self, record: str, key: Key) -> View:
        return self.framing.view(record, *key, self.random)

    def _latents(self, group: str, keys: Sequence[Key], places: Sequence[Sequence[Place | None]]) -> Tensor:
        """Draw (B, C, H, W) latents, or (B, K, C, H, W) of a list: zeros where it is shorter."""
        flat = [(key, place) for key, several in zip(keys, places, strict=True) for place in several]
        there = [(key, place) for key, place in flat if place is not None]
        views = [self._view(place.record_id, key) for key, place in there]
        posterior = self.cache.latents([self._candidate(place) for _, place in there], views)
        companion = (group,) if group in COMPANIONS else ()
        drawn = [(*key, *companion, place.candidate) for key, place in there]
        noise = self.random.normal("posterior", drawn, posterior.mean.shape[1:])
        latents = posterior.mean + posterior.std * noise
        if len(there) < len(flat):
            whole = latents.new_zeros((len(flat), *latents.shape[1:]))
            whole[torch.tensor([place is not None for _, place in flat])] = latents
            latents = whole
        if group == "list":
            latents = latents.unflatten(0, (len(keys), -1))
        return latents.to(self.device)


def _several(candidates: int | tuple[int, ...]) -> tuple[int, ...]:
    return (candidates,) if isinstance(candidates, int) else candidates

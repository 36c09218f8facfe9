"""From records to encoded batches: the pair view, the encoding pass, and the sampler's order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from diffpref.cache import EncodedCache
from diffpref.config import Data
from diffpref.core.contracts import Batch, Candidate, Conditioning, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import Framing, KeyedSampler, Pair, View, open_records, pair_view, usable_records

__all__ = ["PairBatches", "framing_of", "load_pairs", "pair_columns"]

AT_ONCE = 128
"""Pairs whose images are in memory together while they are encoded."""


def load_pairs(data: Data, quarantine: str | None = None) -> tuple[Sequence[Record], list[Pair]]:
    """Read a source and return its records and its pairs, winners first.

    Raises:
        DataError: unreadable, nothing in it gives a pair, or a pair's weight is not a finite number >= 0.
    """
    limit = data.max_unusable
    opened = open_records(data.source, columns=data.columns, on_bad_shard=data.on_bad_shard)
    records = usable_records(opened, quarantine=quarantine, limit=limit)
    pairs = pair_view(
        records,
        data.pairing,
        data.score,
        min_gap=data.min_gap,
        drop_ties=data.drop_ties,
        drop_identical=data.drop_identical,
        judgements=data.judgements,
        max_unusable=limit,
    )
    return records, pairs


def framing_of(data: Data) -> Framing:
    """Return how a recipe wants its images cut."""
    return Framing(data.random_flip, data.random_crop, data.views, data.size_conditioning == "original")


def pair_columns(pairs: Sequence[Pair]) -> frozenset[str]:
    """Return the data columns that pairs give: those in which any differs from the default of 1."""
    given = {
        "preference": any(pair.probability != 1.0 for pair in pairs),
        "weight": any(pair.weight != 1.0 for pair in pairs),
    }
    return frozenset(name for name, there in given.items() if there)


class PairBatches:
    """Micro-batches of pairs as latents and conditioning.

    Args:
        records: of the source.
        pairs: of the records.
        cache: where everything that `encode` names is encoded.
        random: of the run.
        device: where batches go.
        used: the groups that the method asks for; the others are neither encoded nor read.
        framing: how images are cut, and what is told of their sizes.
        slots: draws that a record sees in all, one after another; 0: a new one at each visit.
    """

    groups: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    def __init__(
        self,
        records: Sequence[Record],
        pairs: Sequence[Pair],
        cache: EncodedCache,
        random: Random,
        device: torch.device,
        used: Sequence[str] = groups,
        framing: Framing | None = None,
        slots: int = 0,
    ) -> None:
        self.records, self.pairs, self.cache, self.random, self.device = records, pairs, cache, random, device
        self.used, self.framing = tuple(used), framing or Framing()
        self.sampler = KeyedSampler(len(pairs), random.seed)
        self.columns, self.slots = pair_columns(pairs), slots
        self._empty: Conditioning | None = None
        self._contents: list[tuple[Candidate, ...]] | None = None

    def encode(self) -> tuple[int, int]:
        """Encode what the cache lacks; return how many images and captions that was."""
        images = 0
        for start in range(0, len(self.pairs), AT_ONCE):
            candidates, views = zip(*self._framed(self.pairs[start : start + AT_ONCE]), strict=True)
            images += self.cache.encode_images(candidates, views)
        return images, self.cache.encode_captions(["", *dict.fromkeys(pair.prompt for pair in self.pairs)])

    def digest(self) -> dict[str, Any]:
        """Return how many pairs there are, and a digest of all that they are: their order, labels and content."""
        seen = hashlib.blake2b(digest_size=16)
        for pair, shown in zip(self.pairs, self.contents, strict=True):
            content = [candidate.sha256 for candidate in shown[: len(self.used)]]
            values = [pair.key, pair.record_id, pair.prompt, pair.probability, pair.weight, *content]
            seen.update(json.dumps(values).encode() + b"\n")
        return {"pairs": len(self.pairs), "content": seen.hexdigest()}

    def _framed(self, pairs: Iterable[Pair]) -> Iterator[tuple[Candidate, View]]:
        """Yield every image that may be shown, in each of its views."""
        for pair in pairs:
            shown = self._shown(pair)
            for view in self.framing.views(pair.record_id, self.random):
                yield from ((candidate, view) for candidate in shown)

    def _shown(self, pair: Pair) -> list[Candidate]:
        """Return the images of a pair in the order of `used`, then the one whose size is told, if any is."""
        candidates = self.records[pair.record_index].candidates
        shown = [candidates[getattr(pair, group)] for group in self.used]
        return [*shown, candidates[0]] if self.framing.original_sizes else shown

    @property
    def contents(self) -> list[tuple[Candidate, ...]]:
        """The images of each pair by their digests alone: a step need not read records, which hold whole files."""
        if self._contents is None:
            self._contents = [
                tuple(Candidate(sha256=self.cache.digest(candidate)) for candidate in self._shown(pair))
                for pair in self.pairs
            ]
        return self._contents

    def keys(self, items: Sequence[tuple[int, int]]) -> tuple[tuple[str, int], ...]:
        """Return what the random draws of (pair number, visit) items are keyed by."""
        return tuple((self.pairs[index].key, visit % self.slots if self.slots else visit) for index, visit in items)

    def batch(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of (pair number, visit) items. Latents are drawn from their posteriors by key."""
        if not items:
            raise DataError("an empty batch was asked for")
        pairs, keys = [self.pairs[index] for index, _ in items], self.keys(items)
        if self._empty is None:
            self._empty = self.cache.conditioning([""]).to(self.device)
        views = [self.framing.view(pair.record_id, *key, self.random) for pair, key in zip(pairs, keys, strict=True)]
        shown = list(zip(*(self.contents[index] for index, _ in items), strict=True))
        media = {}
        for place, group in enumerate(self.used):
            numbers = [getattr(pair, group) for pair in pairs]
            posterior = self.cache.latents(shown[place], views)
            drawn = [(*key, number) for key, number in zip(keys, numbers, strict=True)]
            noise = self.random.normal("posterior", drawn, posterior.mean.shape[1:])
            media[group] = (posterior.mean + posterior.std * noise).to(self.device)
        given = {"preference": [pair.probability for pair in pairs], "weight": [pair.weight for pair in pairs]}
        columns = {name: torch.tensor(given[name], device=self.device) for name in sorted(self.columns)}
        conditioning = self.cache.conditioning([pair.prompt for pair in pairs])
        if self.framing.original_sizes:
            conditioning = conditioning.replace(self.cache.size_conditioning(shown[-1], views))
        return Batch(keys, media, {"": conditioning.to(self.device)}, columns, self._empty)

"""From records to encoded batches: the pair view, the encoding pass, and the sampler's order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch

from diffpref.cache import EncodedCache
from diffpref.config import Data
from diffpref.core.contracts import Batch, Candidate, Conditioning, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import KeyedSampler, Pair, open_records, pair_view, usable_records

__all__ = ["PairBatches", "load_pairs"]

logger = logging.getLogger(__name__)


def load_pairs(data: Data, quarantine: str | None = None) -> tuple[Sequence[Record], list[Pair]]:
    """Read a source and return its records and its pairs, winners first.

    Raises:
        DataError: unreadable, or nothing in it gives a pair.
    """
    records = usable_records(open_records(data.source), quarantine=quarantine)
    pairs = pair_view(records, data.pairing, data.score, min_gap=data.min_gap, drop_ties=data.drop_ties)
    logger.info("data: %d records give %d pairs", len(records), len(pairs))
    return records, pairs


class PairBatches:
    """Micro-batches of pairs as latents and conditioning.

    Args:
        records: of the source.
        pairs: of the records.
        cache: where everything that `encode` names is encoded.
        random: of the run.
        device: where batches go.
    """

    groups = ("chosen", "rejected")

    def __init__(
        self,
        records: Sequence[Record],
        pairs: Sequence[Pair],
        cache: EncodedCache,
        random: Random,
        device: torch.device,
    ) -> None:
        self.records, self.pairs, self.cache, self.random, self.device = records, pairs, cache, random, device
        self.sampler = KeyedSampler(len(pairs), random.seed)
        self._soft = any(pair.probability != 1.0 for pair in pairs)
        self._weighted = any(pair.weight != 1.0 for pair in pairs)
        self._empty: Conditioning | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The data columns that batches have."""
        return frozenset(
            name for name, there in (("preference", self._soft), ("weight", self._weighted)) if there
        )

    def encode(self) -> tuple[int, int]:
        """Encode what the cache lacks; return how many images and captions that was."""
        images = self.cache.encode_images(self._used())
        return images, self.cache.encode_captions(["", *dict.fromkeys(pair.prompt for pair in self.pairs)])

    def _used(self) -> Iterable[Candidate]:
        for pair in self.pairs:
            candidates = self.records[pair.record_index].candidates
            yield from (candidates[pair.chosen], candidates[pair.rejected])

    def batch(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of (pair number, visit) items. Latents are drawn from their posteriors by key."""
        if not items:
            raise DataError("an empty batch was asked for")
        pairs = [self.pairs[index] for index, _ in items]
        keys = tuple((_pair_id(pair), visit) for pair, (_, visit) in zip(pairs, items, strict=True))
        if self._empty is None:
            self._empty = self.cache.conditioning([""]).to(self.device)
        media = {}
        for group in self.groups:
            numbers = [getattr(pair, group) for pair in pairs]
            candidates = [self.records[p.record_index].candidates[n] for p, n in zip(pairs, numbers, strict=True)]
            posterior = self.cache.latents(candidates)
            drawn = [(*key, number) for key, number in zip(keys, numbers, strict=True)]
            noise = self.random.normal("posterior", drawn, posterior.mean.shape[1:])
            media[group] = (posterior.mean + posterior.std * noise).to(self.device)
        columns = {}
        if self._soft:
            columns["preference"] = torch.tensor([pair.probability for pair in pairs], device=self.device)
        if self._weighted:
            columns["weight"] = torch.tensor([pair.weight for pair in pairs], device=self.device)
        conditioning = self.cache.conditioning([pair.prompt for pair in pairs]).to(self.device)
        return Batch(keys, media, {"": conditioning}, columns, self._empty)


def _pair_id(pair: Pair) -> str:
    """The key of a pair's draws: the same whichever of the two is the winner."""
    low, high = sorted((pair.chosen, pair.rejected))
    return f"{pair.record_id}/{low}-{high}"

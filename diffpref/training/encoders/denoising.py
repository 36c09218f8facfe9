"""For denoisers: images and clips as latents, captions as embeddings, from the cache that the encoding pass fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.cache import EncodedCache
from diffpref.cache.encoded import Opening
from diffpref.config import Data, Recipe
from diffpref.core.contracts import Batch, Candidate, Conditioning, PromptMedia, Record, Tensors
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import COMPANIONS, ClipCut, Framing, Item, Pair, View
from diffpref.data.clips import Check, check_clip, check_picture
from diffpref.data.segments import latent_labels
from diffpref.models import load_family, open_family
from diffpref.models import registry as families
from diffpref.training.encoders import Key, Place, Shown, registry

__all__ = ["LatentEncoder", "cut_of", "framing_of", "open_cache"]

AT_ONCE = 128
"""Items whose images are in memory together while they are encoded."""
SAME = 1e-3
"""By how much what is told of one picture may differ between two calls of an encoder."""


def framing_of(data: Data) -> Framing:
    """Return how a recipe wants its images and clips cut."""
    original_sizes = data.size_conditioning == "original"
    return Framing(data.random_flip, data.random_crop, data.views, original_sizes, data.random_start)


def cut_of(data: Data, family: Any) -> ClipCut | None:
    """Return how a recipe wants clips cut in time; None for a family of images.

    Raises:
        ConfigError: the family cannot take so many frames.
    """
    if family.samples != "videos":
        return None
    count = data.num_frames or family.native_frames()
    family.check_frames(count)
    return ClipCut(count, data.frame_stride, data.fps)


def open_cache(recipe: Recipe, device: torch.device | str) -> EncodedCache:
    """Return the cache of a recipe, with the encoders loaded that fill it.

    Raises:
        ConfigError: the family cannot take so many frames as are asked for.
        ModelError: nothing that can be loaded lies at the model's path.
    """
    encoders = open_family(recipe.model, "vae", "text").to(device)
    resolution = recipe.data.resolution or encoders.native_resolution()
    folder = Path(recipe.data.cache or Path(recipe.output) / "cache")
    return EncodedCache(folder, encoders, resolution, cut_of(recipe.data, encoders))


@registry.register("denoising")
class LatentEncoder:
    """Latents are drawn from their posteriors by key; the views of an image belong to its record.

    Args:
        records: of the source.
        cache: where everything that `encode` names is encoded.
        random: of the run.
        device: where batches go.
        framing: how images and clips are cut, and what is told of their sizes.
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
        self._openings: dict[Place, Opening] = {}
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
        return cls(records, open_cache(recipe, device), random, device, framing_of(recipe.data))

    @classmethod
    def check(cls, recipe: Recipe) -> Check:
        if families.get(recipe.model.family).samples != "videos":
            return check_picture
        told = load_family(recipe.model.family, recipe.model.path, parts=(), revision=recipe.model.revision)
        cut = cut_of(recipe.data, told)
        return check_picture if cut is None else check_clip(cut)

    def usable(self, items: Sequence[Item], groups: Sequence[str]) -> Sequence[Item]:
        return items

    def encode(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        for start in range(0, len(items) if groups else 0, AT_ONCE):
            candidates, views = zip(*self._framed(items[start : start + AT_ONCE], groups), strict=True)
            self.cache.encode_media(candidates, views)
            if self.cache.family.takes_opening:
                self._encode_openings(items[start : start + AT_ONCE], groups)
        self._check_segments(items)
        captions = (text for item in items for text in (item.prompt, *item.captions.values()))
        self.cache.encode_captions(["", *dict.fromkeys(captions)])

    @property
    def timesteps(self) -> Tensor:
        """(2,) such as the family draws: numbers of a chain, or levels of a flow."""
        drawn: Tensor = self.cache.family.sample_timesteps(torch.tensor([0.25, 0.75], dtype=torch.float64))
        return drawn

    def release(self) -> None:
        self.cache.release()

    def _framed(self, items: Iterable[Item], groups: Sequence[str]) -> Iterator[tuple[Candidate, View]]:
        """Yield every image or clip that may be shown, in each of its views."""
        for item in items:
            found = [number for group in groups for number in _several(item.groups[group])]
            numbers = [*found, 0] if self.framing.original_sizes else found
            shown = [self.records[item.record_index].candidates[number] for number in numbers]
            for view in self._views(item):
                yield from ((candidate, view) for candidate in shown)

    def content(self, place: Place) -> str:
        return self._candidate(place).sha256

    def _views(self, item: Item) -> tuple[View, ...]:
        return self.framing.views(item.record_id, self.random)

    def _encode_openings(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        """Encode the pictures that the denoiser is told of: a record's own, else the first frames of its clips.

        One picture speaks for all candidates that are compared: of two, the denoiser would be told which is which.

        Raises:
            DataError: a record has none, and its clips begin differently.
        """
        told: list[tuple[Item, list[tuple[Opening, View]]]] = []
        for item in items:
            numbers = sorted({number for group in groups for number in _several(item.groups[group])})
            places = [Place(item.record_index, item.record_id, number) for number in numbers]
            openings = dict.fromkeys(map(self._opening, places))
            told += [(item, [(opening, view) for opening in openings]) for view in self._views(item)]
        self.cache.encode_openings(one for _, several in told for one in several)
        for item, several in told:
            if any(bool(((rows - rows[:1]).abs() > SAME).any()) for rows in self.cache.openings(several).values()):
                raise DataError(
                    f"record '{item.record_id}': its clips begin with different pictures, and"
                    f" '{self.cache.family.name}' is told one for all; give the record the picture that its clips are"
                    " to begin with (inputs)"
                )

    def _opening(self, place: Place) -> Opening:
        """Return where the picture comes from that the denoiser is told."""
        record = self.records[place.record]
        given = next((media for media in record.inputs if media.kind == "image"), None)
        return given or record.candidates[place.candidate]

    def _known_opening(self, place: Place) -> Opening:
        """Return the same by its digest alone."""
        if place not in self._openings:
            opening = self._opening(place)
            kind = Candidate if isinstance(opening, Candidate) else PromptMedia
            self._openings[place] = kind(sha256=self.cache.digest(opening))
        return self._openings[place]

    def _candidate(self, place: Place) -> Candidate:
        """Return an image by its digest alone: a step need not read records, which hold whole files."""
        if place not in self._known:
            candidate = self.records[place.record].candidates[place.candidate]
            self._known[place] = Candidate(sha256=self.cache.digest(candidate))
        return self._known[place]

    def batch(self, keys: Sequence[Key], items: Sequence[Item], shown: Shown) -> Batch:
        views = [self._view(item.record_id, key) for item, key in zip(items, keys, strict=True)]
        media = {group: self._latents(group, keys, places) for group, places in shown.items()}
        besides = self._besides(items, views, shown)
        if self._empty is None:
            self._empty = self.cache.conditioning([""]).to(self.device)
        texts = {"": [item.prompt for item in items]}
        texts |= {group: [item.captions[group] for item in items] for group in items[0].captions}
        conditioning = {
            group: self.cache.conditioning(several).replace(besides).to(self.device) for group, several in texts.items()
        }
        return Batch(tuple(keys), media, conditioning, self._segment_labels(items, views), self._empty)

    def _segment_labels(self, items: Sequence[Item], views: Sequence[View]) -> Tensors:
        """Return ``segment_label`` (B, F) of pairs that were judged by parts: which is better in each latent frame.

        Raises:
            DataError: the clips of a pair do not tell their speed, or differ in what is shown of them.
        """
        pairs = [item for item in items if isinstance(item, Pair) and item.segments]
        if len(pairs) < len(items):
            return {}
        family: Any = self.cache.family  # of videos: others have no segments
        labels = []
        for pair, view in zip(pairs, views, strict=True):
            places = [Place(pair.record_index, pair.record_id, number) for number in (pair.chosen, pair.rejected)]
            shown, other = self.cache.shown([self._candidate(place) for place in places], [view] * 2)
            if shown.fps is None or shown != other:
                both = " and ".join(f"frames {list(one.frames)} at {one.fps} a second" for one in (shown, other))
                why = "do not tell their frames a second" if shown.fps is None else f"differ: {both}"
                raise DataError(f"record {pair.record_id!r}: parts are judged by seconds, and its clips {why}")
            held = {"temporal_factor": family.temporal_factor, "causal": family.causal}
            labels.append(latent_labels(shown.frames, shown.fps, pair.segments, **held))
        return {"segment_label": torch.tensor(labels, dtype=torch.float32, device=self.device)}

    def _check_segments(self, items: Sequence[Item]) -> None:
        """Look at the labels of all parts that may be shown, so that what is wrong is told before the first step.

        Raises:
            DataError: clips whose parts cannot be found, or no frame that is shown of any pair has a label but a tie.
        """
        told = [self._segment_labels([item], [view]) for item in items for view in self._views(item)]
        labels = [tensor for columns in told for tensor in columns.values()]
        if labels and not any(bool(tensor.any()) for tensor in labels):
            raise DataError(
                f"{len(items)} pairs are judged by parts, and no frame that is shown lies in one without a tie; show"
                " other frames (data.num_frames, data.frame_stride, data.fps, data.random_start)"
            )

    def _besides(self, items: Sequence[Item], views: Sequence[View], shown: Shown) -> Tensors:
        """Return what a denoiser is told besides captions, a row a record: its sizes, a picture to begin with."""
        found: dict[str, Tensor] = {}
        if self.framing.original_sizes:
            first = [self._candidate(Place(item.record_index, item.record_id, 0)) for item in items]
            found |= self.cache.size_conditioning(first, views)
        if self.cache.family.takes_opening:
            rows = zip(*shown.values(), strict=True)
            places = [
                next(place for several in row for place in several if place and place.record == item.record_index)
                for item, row in zip(items, rows, strict=True)
            ]
            found |= self.cache.openings(zip(map(self._known_opening, places), views, strict=True))
        return found

    def _view(self, record: str, key: Key) -> View:
        return self.framing.view(record, *key, self.random)

    def _latents(self, group: str, keys: Sequence[Key], places: Sequence[Sequence[Place | None]]) -> Tensor:
        """Draw (B, C, H, W) latents, of clips (B, C, F, H, W), or (B, K, ...) of a list: zeros where it is shorter."""
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

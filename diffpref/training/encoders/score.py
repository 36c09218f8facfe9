"""For reward models: pictures and clips as pixels, or as features of towers that are not trained and run only once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from diffpref.cache import TensorCache
from diffpref.config import Recipe
from diffpref.core.contracts import Batch, Candidate, Conditioning, Record
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.data import Item
from diffpref.data.clips import Check, candidate_digest, check_media, check_picture, read_frames
from diffpref.models import open_family
from diffpref.models.digest import digest
from diffpref.training.encoders import Key, Place, Shown, registry

__all__ = ["ScoreEncoder"]

AT_ONCE = 64
"""Items that run through frozen towers together."""


@registry.register("score")
class ScoreEncoder:
    """Items are framed as the image processor of the model says.

    Args:
        records: of the source.
        family: with its tokenizer and image processor, and its towers where they run once.
        device: where batches go.
        frames: of a clip; None: items are pictures.
        folder: of the cache of features.
    """

    texts: ClassVar[bool] = False
    even = True

    def __init__(
        self, records: Sequence[Record], family: Any, device: torch.device, frames: int | None, folder: Path
    ) -> None:
        self.records, self.family, self.device, self.frames = records, family, device, frames
        self._digests: dict[Place, str] = {}
        self._prompts: dict[str, Conditioning] = {}
        self._features: TensorCache | None = None
        if family.encodes_once:
            told = f"{digest(family.model.state_dict())} {frames} {family.told.processor.to_json_string()}"
            version = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
            self._features = TensorCache(folder / f"scorer-{version}")

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        records: Sequence[Record],
        random: Random,
        device: torch.device,
        names: Sequence[str] = (),
    ) -> ScoreEncoder:
        from diffpref.models import registry as families

        data = recipe.data
        odd = {"random_flip": data.random_flip, "random_crop": data.random_crop, "resolution": data.resolution}
        for name in (name for name, value in odd.items() if value):
            raise ConfigError(f"data.{name}: pictures are framed as the image processor says; leave it out")
        kind: Any = families.get(recipe.model.family)
        family = open_family(recipe.model, "towers" if kind.encodes_once else "text").to(device)
        return cls(
            records, family, device, recipe.scorer.frames, Path(recipe.data.cache or Path(recipe.output) / "cache")
        )

    @classmethod
    def check(cls, recipe: Recipe) -> Check:
        return check_picture if recipe.scorer.frames is None else check_media

    def usable(self, items: Sequence[Item], groups: Sequence[str]) -> Sequence[Item]:
        return items

    def encode(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        """Encode every prompt, and where towers run once every item that is not in the cache."""
        self._read_prompts(list(dict.fromkeys(item.prompt for item in items)))
        if self._features is None:
            return
        places = dict.fromkeys(place for item in items for group in groups for place in _places(item, group))
        wanted = {self.content(place): place for place in places}
        missing = [(key, place) for key, place in wanted.items() if key not in self._features]
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            features = self.family.encode_media([self._read(place) for _, place in part])
            self._features.add({key: {"media": row} for (key, _), row in zip(part, features, strict=True)})

    def _read_prompts(self, prompts: Sequence[str]) -> None:
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            told = self.family.encode_prompts(part)
            self._prompts.update({prompt: told.take([row]) for row, prompt in enumerate(part)})

    def _candidate(self, place: Place) -> Candidate:
        return self.records[place.record].candidates[place.candidate]

    def _read(self, place: Place) -> list[Image.Image]:
        return read_frames(self._candidate(place), self.frames)

    def release(self) -> None:
        if self._features is not None:
            self.family.towers = None

    def content(self, place: Place) -> str:
        if place not in self._digests:
            candidate = self._candidate(place)
            self._digests[place] = candidate_digest(candidate)
        return self._digests[place]

    # ------------------------------------------------------------ in a step

    def batch(self, keys: Sequence[Key], items: Sequence[Item], shown: Shown) -> Batch:
        media = {group: self._media(group, places) for group, places in shown.items()}
        conditioning = Conditioning.concatenate([self._prompts[item.prompt] for item in items]).to(self.device)
        return Batch(tuple(keys), media, {"": conditioning}, {}, Conditioning({}))

    def _media(self, group: str, places: Sequence[Sequence[Place | None]]) -> Tensor:
        """Return (B, ...) rows, (B, K, ...) of a list with zeros where it is shorter."""
        flat = [place for several in places for place in several]
        there = [place for place in flat if place is not None]
        rows = self._rows(there)
        if len(there) < len(flat):
            whole = rows.new_zeros((len(flat), *rows.shape[1:]))
            whole[torch.tensor([place is not None for place in flat])] = rows
            rows = whole
        return (rows.unflatten(0, (len(places), -1)) if group == "list" else rows).to(self.device)

    def _rows(self, places: Sequence[Place]) -> Tensor:
        if self._features is None:
            rows: Tensor = self.family.encode_media([self._read(place) for place in places])
            return rows
        return torch.stack([self._features.get(self.content(place))["media"] for place in places])


def _places(item: Item, group: str) -> list[Place]:
    several = item.groups[group]
    numbers = (several,) if isinstance(several, int) else several
    return [Place(item.record_index, item.record_id, number) for number in numbers]

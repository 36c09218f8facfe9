"""Images and clips as latents and captions as embeddings, encoded once, before the denoiser is in memory.

An image's entry is keyed by its content, its view, the resolution and the VAE's weights, a clip's also by how it is cut
in time; a caption's by its text, the resolution and the text encoders' weights. The posterior's mean and standard
deviation are stored, not a draw from it, and beside them what SDXL's micro-conditioning asks about sizes, and of a clip
which of its frames these are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
import xxhash
from torch import Tensor, nn

from diffpref.cache.tensors import TensorCache
from diffpref.core.contracts import Candidate, Conditioning, PromptMedia, Tensors
from diffpref.core.errors import DataError
from diffpref.data import CENTRE, ClipCut, Framed, View, decode_image, image_tensor
from diffpref.data.clips import candidate_digest, candidate_source, cut_clip
from diffpref.data.images import clip_tensor, picture_bytes
from diffpref.models.family import DenoiserFamily, Latents, Network

__all__ = ["EncodedCache", "Opening", "Shown", "component_digest"]

T = TypeVar("T")
Opening: TypeAlias = Candidate | PromptMedia
"""Where a denoiser that is told a picture gets it: a picture that belongs to the prompt, or a clip's first frame."""

ROWS = 16
"""Items in one call of an encoder, frames of clips. Short calls are padded, so that an entry does not depend on its
companions."""
SHARD = 512
"""Entries in one file, of clips frames, and the most that an interruption loses."""


class Shown(NamedTuple):
    """Which frames of a clip are shown.

    Args:
        frames: their positions in the clip.
        fps: frames a second of the clip, None where it does not tell.
    """

    frames: tuple[int, ...]
    fps: float | None


def component_digest(*modules: nn.Module) -> str:
    """Return a digest of all weights and buffers of modules, with their names, dtypes and shapes."""
    digest = xxhash.xxh3_128()
    for module in modules:
        digest.update(type(module).__name__.encode())
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(*parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class EncodedCache:
    """Latents and conditioning by content.

    Args:
        folder: where tensors lie.
        family: with VAE and text encoders loaded; they are needed while encoding only.
        resolution: pixels of the square images.
        cut: of clips, how they are cut in time; None: candidates are images.
    """

    def __init__(self, folder: Path, family: DenoiserFamily, resolution: int, cut: ClipCut | None = None) -> None:
        self.family = family
        self.resolution, self.cut = resolution, cut
        self._tensors = TensorCache(folder)
        self._digests: dict[str, str] = {}
        vae, encoders = family.vae, family.encoders
        if vae is None or not encoders:
            raise DataError("the encoding pass needs the VAE and the text encoders of the family")
        told = () if cut is None else (cut,)
        self._media_version = _key(component_digest(vae), network_settings(vae), resolution, "sizes", *told)
        settings = [network_settings(encoder) for encoder in encoders]
        settings += [_tokenizer_settings(text.tokenizer) for text in family.texts]
        settings += [f"{name}={value}" for name, value in sorted(family.text_settings.items())]
        self._text_version = _key(family.name, component_digest(*encoders), *settings, resolution)

    def release(self) -> None:
        """Drop the family's VAE and text encoders, so that their memory is free; what is encoded stays readable."""
        self.family.drop("vae", "text")

    def _encoder(self) -> DenoiserFamily:
        if self.family.vae is None:
            raise DataError("the encoders were released; make a new cache to encode more")
        return self.family

    @property
    def _kind(self) -> str:
        return "image" if self.cut is None else "clip"

    def _media_key(self, candidate: Candidate, view: View) -> str:
        return _key(self._kind, self.digest(candidate), view, self._media_version)

    def digest(self, media: Opening) -> str:
        """Return the sha256 of the encoded bytes of an image, a clip, or a picture that belongs to a prompt."""
        one = media if isinstance(media, Candidate) else Candidate(media.bytes, media.path, sha256=media.sha256)
        if one.sha256 or one.path is None or one.bytes is not None:
            return candidate_digest(one)
        if one.path not in self._digests:  # a file is read once a run, not once a step
            self._digests[one.path] = candidate_digest(one)
        return self._digests[one.path]

    def _text_key(self, caption: str) -> str:
        return _key("text", caption, self._text_version)

    def encode_media(self, candidates: Iterable[Candidate], views: Iterable[View] | None = None) -> int:
        """Encode what is not there yet; return how many images or clips that was.

        Args:
            candidates: images, or clips where there is a `cut`.
            views: how each is cut, one a candidate; not given: the centre.

        Raises:
            DataError: one cannot be decoded, or a clip not be cut so.
        """
        encoder = self._encoder()
        items = zip(candidates, views, strict=True) if views is not None else zip(candidates, repeat(CENTRE))
        rows = ROWS if self.cut is None else max(1, ROWS // self.cut.num_frames)

        def encode(part: Sequence[tuple[Candidate, View]]) -> dict[str, Tensor]:
            framed, times = zip(*(self._framed(candidate, view) for candidate, view in part), strict=True)
            latents = encoder.encode_media(torch.stack(_padded([f.pixels for f in framed], rows)))
            sizes = torch.tensor([(*f.original_size, *f.crop_offset) for f in framed], dtype=torch.float32)
            told = {"mean": latents.mean, "std": latents.std, "sizes": sizes}
            return told if self.cut is None else {**told, "times": torch.stack(times)}

        return self._encode({self._media_key(c, v): (c, v) for c, v in items}, encode, rows)

    def _framed(self, candidate: Candidate, view: View) -> tuple[Framed, Tensor]:
        """Return what is shown of a candidate, and of a clip its speed, NaN where that is unknown, and which frames."""
        if self.cut is None:
            return image_tensor(decode_image(candidate_source(candidate)), self.resolution, view), torch.empty(0)
        clip, places = cut_clip(candidate, self.cut, view)
        fps = math.nan if clip.fps is None else clip.fps
        return clip_tensor(clip.frames, self.resolution, view), torch.tensor([fps, *places], dtype=torch.float64)

    def encode_openings(self, openings: Iterable[tuple[Opening, View]]) -> int:
        """Encode the pictures that a family's denoiser is told of, where it is told one; return how many were new.

        Args:
            openings: a picture that belongs to a prompt, or a clip whose first shown frame it is; and how it is cut.
        """
        encoder = self._encoder()

        def encode(part: Sequence[tuple[Opening, View]]) -> Tensors:
            pixels = [self._opening(opening, view) for opening, view in part]
            return encoder.encode_opening(torch.stack(_padded(pixels)), self.resolution)

        return self._encode({self._opening_key(o, v): (o, v) for o, v in openings}, encode)

    def _opening(self, opening: Opening, view: View) -> Tensor:
        """Return (3, R, R) pixels."""
        if isinstance(opening, Candidate):
            return self._framed(opening, view)[0].pixels[0]
        return image_tensor(decode_image(picture_bytes(opening)), self.resolution, view).pixels

    def _opening_key(self, opening: Opening, view: View) -> str:
        kind = f"opening of a {'picture' if isinstance(opening, PromptMedia) else 'clip'}"
        return _key(kind, self.digest(opening), view, self._media_version, self._text_version)

    def encode_captions(self, captions: Iterable[str]) -> int:
        """Encode what is not there yet; return how many captions that was."""
        encoder = self._encoder()

        def encode(part: Sequence[str]) -> Tensors:
            return encoder.encode_prompt(_padded(part), self.resolution).tensors

        return self._encode({self._text_key(text): text for text in captions}, encode)

    def _encode(self, items: Mapping[str, T], encode: Callable[[Sequence[T]], Tensors], rows: int = ROWS) -> int:
        keys = [key for key in items if key not in self._tensors]
        shard = SHARD * rows // ROWS
        for first in range(0, len(keys), shard):
            entries: dict[str, Tensors] = {}
            for start in range(first, min(first + shard, len(keys)), rows):
                part = keys[start : min(start + rows, first + shard)]
                tensors = encode([items[key] for key in part])
                entries.update({key: {n: t[i].cpu() for n, t in tensors.items()} for i, key in enumerate(part)})
            self._tensors.add(entries)
        return len(keys)

    def latents(self, candidates: Sequence[Candidate], views: Sequence[View] | None = None) -> Latents:
        """Return the posteriors of encoded images, (N, C, H, W) each, of clips (N, C, F, H, W); of their centres where
        no views are given.
        """
        entries = self._media(candidates, views)
        return Latents(torch.stack([e["mean"] for e in entries]), torch.stack([e["std"] for e in entries]))

    def size_conditioning(self, candidates: Sequence[Candidate], views: Sequence[View] | None = None) -> Tensors:
        """Return what the denoiser is to be told of the sizes and crops of encoded images, a row each."""
        sizes = torch.stack([entry["sizes"] for entry in self._media(candidates, views)])
        return self.family.size_conditioning(sizes, self.resolution)

    def shown(self, candidates: Sequence[Candidate], views: Sequence[View] | None = None) -> list[Shown]:
        """Return which frames of encoded clips are shown."""
        found = []
        for entry in self._media(candidates, views):
            fps, *places = entry["times"].tolist()
            found.append(Shown(tuple(map(int, places)), None if math.isnan(fps) else fps))
        return found

    def openings(self, openings: Iterable[tuple[Opening, View]]) -> Tensors:
        """Return what the denoiser is told of encoded pictures, a row each."""
        entries = [self._get(self._opening_key(opening, view), "picture") for opening, view in openings]
        return {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}

    def _media(self, candidates: Sequence[Candidate], views: Sequence[View] | None) -> list[Mapping[str, Tensor]]:
        views = [CENTRE] * len(candidates) if views is None else views
        return [self._get(self._media_key(c, v), self._kind) for c, v in zip(candidates, views, strict=True)]

    def conditioning(self, captions: Sequence[str]) -> Conditioning:
        """Return a row for each encoded caption."""
        entries = [self._get(self._text_key(caption), "caption") for caption in captions]
        return Conditioning({name: torch.stack([entry[name] for entry in entries]) for name in entries[0]})

    def _get(self, key: str, kind: str) -> Mapping[str, Tensor]:
        if key not in self._tensors:
            raise DataError(f"this {kind} is not in the cache; encode it first")
        return self._tensors.get(key)


def _padded(items: Sequence[T], rows: int = ROWS) -> list[T]:
    return [*items, *[items[-1]] * (rows - len(items))]


def network_settings(module: Network) -> str:
    """Return what decides a network's answers besides its weights; not where it comes from and who wrote it."""
    settings = module.config if isinstance(module.config, dict) else module.config.to_dict()
    history = {"architectures", "dtype", "torch_dtype", "transformers_version"}
    kept = {name: value for name, value in settings.items() if not name.startswith("_") and name not in history}
    return json.dumps(kept, sort_keys=True, default=str)


def _tokenizer_settings(tokenizer: Any) -> str:
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    # the last call's padding and truncation are left in it; every call of ours sets them anew
    settings |= {"padding": None, "truncation": None, "length": tokenizer.model_max_length, "pad": tokenizer.pad_token}
    return json.dumps(settings, sort_keys=True)

"""Images as latents and captions as embeddings, encoded once, before the denoiser is in memory.

An image's entry is keyed by its content, its view, the resolution and the VAE's weights; a caption's by its text, the
resolution and the text encoders' weights. The posterior's mean and standard deviation are stored, not a draw from it,
and beside them what SDXL's micro-conditioning asks about sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
import xxhash
from torch import Tensor, nn

from diffpref.cache.tensors import TensorCache
from diffpref.core.contracts import Candidate, Conditioning, Tensors
from diffpref.core.errors import DataError
from diffpref.data import CENTRE, View, decode_image, image_tensor
from diffpref.models.family import DenoiserFamily, Latents, Network

__all__ = ["EncodedCache", "component_digest"]

T = TypeVar("T")

ROWS = 16
"""Items in one call of an encoder. Short calls are padded, so that an entry does not depend on its companions."""
SHARD = 512
"""Entries in one file, and the most that an interruption loses."""


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
    """

    def __init__(self, folder: Path, family: DenoiserFamily, resolution: int) -> None:
        self.family = family
        self.resolution = resolution
        self._tensors = TensorCache(folder)
        self._digests: dict[str, str] = {}
        vae, texts = family.vae, family.texts
        if vae is None or not texts:
            raise DataError("the encoding pass needs the VAE and the text encoders of the family")
        self._image_version = _key(component_digest(vae), network_settings(vae), resolution, "sizes")
        encoders = [s for t in texts for s in (network_settings(t.model), _tokenizer_settings(t.tokenizer))]
        told = [f"{name}={value}" for name, value in sorted(family.text_settings.items())]
        self._text_version = _key(
            family.name, component_digest(*(t.model for t in texts)), *encoders, *told, resolution
        )

    def release(self) -> None:
        """Drop the family's VAE and text encoders, so that their memory is free; what is encoded stays readable."""
        self.family.drop("vae", "text")

    def _encoder(self) -> DenoiserFamily:
        if self.family.vae is None:
            raise DataError("the encoders were released; make a new cache to encode more")
        return self.family

    def _image_key(self, candidate: Candidate, view: View) -> str:
        return _key("image", self.digest(candidate), view, self._image_version)

    def digest(self, candidate: Candidate) -> str:
        """Return the sha256 of an image's encoded bytes."""
        if candidate.sha256:
            return candidate.sha256
        if candidate.path is None or candidate.bytes is not None:
            return hashlib.sha256(_content(candidate)).hexdigest()
        if candidate.path not in self._digests:  # a file is read once a run, not once a step
            self._digests[candidate.path] = hashlib.sha256(_content(candidate)).hexdigest()
        return self._digests[candidate.path]

    def _text_key(self, caption: str) -> str:
        return _key("text", caption, self._text_version)

    def encode_images(self, candidates: Iterable[Candidate], views: Iterable[View] | None = None) -> int:
        """Encode what is not there yet; return how many images that was.

        Args:
            candidates: images.
            views: how each is cut, one a candidate; not given: the centre.
        """
        encoder = self._encoder()
        items = zip(candidates, views, strict=True) if views is not None else zip(candidates, repeat(CENTRE))

        def encode(part: Sequence[tuple[Candidate, View]]) -> dict[str, Tensor]:
            framed = [image_tensor(decode_image(_source(c)), self.resolution, view) for c, view in part]
            latents = encoder.encode_media(torch.stack(_padded([f.pixels for f in framed])))
            sizes = torch.tensor([(*f.original_size, *f.crop_offset) for f in framed], dtype=torch.float32)
            return {"mean": latents.mean, "std": latents.std, "sizes": sizes}

        return self._encode({self._image_key(c, v): (c, v) for c, v in items}, encode)

    def encode_captions(self, captions: Iterable[str]) -> int:
        """Encode what is not there yet; return how many captions that was."""
        encoder = self._encoder()

        def encode(part: Sequence[str]) -> Tensors:
            return encoder.encode_prompt(_padded(part), self.resolution).tensors

        return self._encode({self._text_key(text): text for text in captions}, encode)

    def _encode(self, items: Mapping[str, T], encode: Callable[[Sequence[T]], Tensors]) -> int:
        keys = [key for key in items if key not in self._tensors]
        for first in range(0, len(keys), SHARD):
            entries: dict[str, Tensors] = {}
            for start in range(first, min(first + SHARD, len(keys)), ROWS):
                part = keys[start : min(start + ROWS, first + SHARD)]
                tensors = encode([items[key] for key in part])
                entries.update({key: {n: t[i].cpu() for n, t in tensors.items()} for i, key in enumerate(part)})
            self._tensors.add(entries)
        return len(keys)

    def latents(self, candidates: Sequence[Candidate], views: Sequence[View] | None = None) -> Latents:
        """Return the posteriors of encoded images, (N, C, H, W) each; of their centres where no views are given."""
        entries = self._images(candidates, views)
        return Latents(torch.stack([e["mean"] for e in entries]), torch.stack([e["std"] for e in entries]))

    def size_conditioning(self, candidates: Sequence[Candidate], views: Sequence[View] | None = None) -> Tensors:
        """Return what the denoiser is to be told of the sizes and crops of encoded images, a row each."""
        sizes = torch.stack([entry["sizes"] for entry in self._images(candidates, views)])
        return self.family.size_conditioning(sizes, self.resolution)

    def _images(self, candidates: Sequence[Candidate], views: Sequence[View] | None) -> list[Mapping[str, Tensor]]:
        views = [CENTRE] * len(candidates) if views is None else views
        return [self._get(self._image_key(c, v), "image") for c, v in zip(candidates, views, strict=True)]

    def conditioning(self, captions: Sequence[str]) -> Conditioning:
        """Return a row for each encoded caption."""
        entries = [self._get(self._text_key(caption), "caption") for caption in captions]
        return Conditioning({name: torch.stack([entry[name] for entry in entries]) for name in entries[0]})

    def _get(self, key: str, kind: str) -> Mapping[str, Tensor]:
        if key not in self._tensors:
            raise DataError(f"this {kind} is not in the cache; encode it first")
        return self._tensors.get(key)


def _content(candidate: Candidate) -> bytes:
    source = _source(candidate)
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error


def _source(candidate: Candidate) -> bytes | str:
    if candidate.bytes is None and not candidate.path:
        raise DataError("a candidate without an image: it has neither bytes nor a path")
    return candidate.bytes if candidate.bytes is not None else str(candidate.path)


def _padded(items: Sequence[T]) -> list[T]:
    return [*items, *[items[-1]] * (ROWS - len(items))]


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

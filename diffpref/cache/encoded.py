"""Images as latents and captions as embeddings, encoded once, before the denoiser is in memory.

An image's entry is keyed by its content, the resolution and the VAE's weights; a caption's by its text, the resolution
and the text encoders' weights. The posterior's mean and standard deviation are stored, not a draw from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from diffpref.cache.tensors import TensorCache
from diffpref.core.contracts import Candidate, Conditioning
from diffpref.core.errors import DataError
from diffpref.data import decode_image, image_tensor
from diffpref.models.family import DenoiserFamily, Latents

__all__ = ["EncodedCache", "component_digest"]

CHUNK = 64


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
        self.family: DenoiserFamily | None = family
        self.resolution = resolution
        self._tensors = TensorCache(folder)
        vae, texts = family.vae, family.texts
        if vae is None or not texts:
            raise DataError("the encoding pass needs the VAE and the text encoders of the family")
        self._image_version = _key(component_digest(vae), resolution, vae.config.scaling_factor, "centre crop")
        tokenizers = [text.tokenizer.backend_tokenizer.to_str() for text in texts]
        self._text_version = _key(component_digest(*(t.model for t in texts)), *tokenizers, resolution)

    def release(self) -> None:
        """Let go of the VAE and the text encoders, so that their memory is free; what is encoded stays readable."""
        self.family = None

    def _encoder(self) -> DenoiserFamily:
        if self.family is None:
            raise DataError("the encoders were released; make a new cache to encode more")
        return self.family

    def _image_key(self, candidate: Candidate) -> str:
        if candidate.sha256:
            return _key("image", candidate.sha256, self._image_version)
        content = candidate.bytes if candidate.bytes is not None else Path(candidate.path or "").read_bytes()
        return _key("image", hashlib.sha256(content).hexdigest(), self._image_version)

    def _text_key(self, caption: str) -> str:
        return _key("text", caption, self._text_version)

    def encode_images(self, candidates: Iterable[Candidate]) -> int:
        """Encode what is not there yet; return how many images that was."""
        todo = {key: c for c in candidates if (key := self._image_key(c)) not in self._tensors}
        keys = list(todo)
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            pictures = [
                image_tensor(decode_image(c.bytes if c.bytes is not None else c.path or ""), self.resolution).pixels
                for c in (todo[key] for key in part)
            ]
            latents = self._encoder().encode_media(torch.stack(pictures))
            self._tensors.add({k: {"mean": latents.mean[i], "std": latents.std[i]} for i, k in enumerate(part)})
        return len(keys)

    def encode_captions(self, captions: Iterable[str]) -> int:
        """Encode what is not there yet; return how many captions that was."""
        todo = {key: text for text in captions if (key := self._text_key(text)) not in self._tensors}
        keys = list(todo)
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            rows = self._encoder().encode_prompt([todo[key] for key in part], self.resolution)
            self._tensors.add({k: {n: t[i] for n, t in rows.tensors.items()} for i, k in enumerate(part)})
        return len(keys)

    def latents(self, candidates: Sequence[Candidate]) -> Latents:
        """Return the posteriors of encoded images, (N, C, H, W) each."""
        entries = [self._get(self._image_key(c), "image") for c in candidates]
        return Latents(torch.stack([e["mean"] for e in entries]), torch.stack([e["std"] for e in entries]))

    def conditioning(self, captions: Sequence[str]) -> Conditioning:
        """Return a row for each encoded caption."""
        entries = [self._get(self._text_key(caption), "caption") for caption in captions]
        return Conditioning({name: torch.stack([entry[name] for entry in entries]) for name in entries[0]})

    def _get(self, key: str, kind: str) -> Mapping[str, Tensor]:
        if key not in self._tensors:
            raise DataError(f"this {kind} is not in the cache; encode it first")
        return self._tensors.get(key)

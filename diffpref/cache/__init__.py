"""What a training step need not compute again: latents and text embeddings, by content."""

from __future__ import annotations

from diffpref.cache.encoded import EncodedCache, component_digest
from diffpref.cache.tensors import TensorCache

__all__ = ["EncodedCache", "TensorCache", "component_digest"]

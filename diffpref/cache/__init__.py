"""What a training step need not compute again: latents, text embeddings and a frozen model's errors, by content."""

from __future__ import annotations

from diffpref.cache.bank import Bank, bank_folder, row_keys
from diffpref.cache.banked import BankedRole
from diffpref.cache.encoded import EncodedCache, component_digest
from diffpref.cache.tensors import TensorCache

__all__ = ["Bank", "BankedRole", "EncodedCache", "TensorCache", "bank_folder", "component_digest", "row_keys"]

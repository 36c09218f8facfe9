"""Embeddings of pictures by a judge that has them, and what follows: diversity, and the distance of two sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diffpref.core.contracts import Reward
from diffpref.core.errors import DataError
from diffpref.core.files import write_atomic
from diffpref.evaluation.measures import diversity, frechet_distance

__all__ = ["EmbeddingFiles", "embedder_of", "set_distances"]

FEWEST = 8
"""Pictures of a set without which a distance between sets says nothing."""


def embedder_of(judges: Mapping[str, Reward]) -> str | None:
    """Return the first judge that can place pictures in a space (``embed_images``); None where there is none."""
    return next((name for name, judge in judges.items() if callable(getattr(judge, "embed_images", None))), None)


class EmbeddingFiles:
    """One contender's embeddings, a file a chunk.

    Args:
        folder: where they lie.
        version: of the embedding model; files of another are made again.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = Path(folder), version

    def read(self, start: int, count: int) -> np.ndarray | None:
        """Return (count, D) float32 of the chunk that begins at a position; None where there is no such file."""
        try:
            with safe_open(self._file(start), framework="numpy") as reader:
                found: np.ndarray = reader.get_tensor("embeddings")
                same = (reader.metadata() or {}).get("version") == self.version
        except (OSError, SafetensorError):
            return None
        return found if same and len(found) == count else None

    def write(self, start: int, embeddings: np.ndarray) -> None:
        """Keep a chunk's embeddings."""
        content = save({"embeddings": np.ascontiguousarray(embeddings, np.float32)}, {"version": self.version})
        write_atomic(self._file(start), content)

    def _file(self, start: int) -> Path:
        return self.folder / f"{start:05d}.safetensors"


def set_distances(own: np.ndarray, base: np.ndarray | None, prompts: Sequence[str], embedder: str) -> dict[str, float]:
    """Return what embeddings say of a contender's pictures together.

    Args:
        own: (N, D) of the contender.
        base: (N, D) of the base; None for the base itself.
        prompts: (N,) their prompts; those with several pictures tell the diversity.
        embedder: who embeds, for the names.
    """
    found: dict[str, float] = {}
    with_direction = np.isfinite(own).all(axis=1) & (np.linalg.norm(own, axis=1) > 0)
    if len(set(prompts)) < len(prompts):
        try:
            kept = [prompt for prompt, keep in zip(prompts, with_direction, strict=True) if keep]
            by_prompt: dict[Any, float] = diversity(own[with_direction], kept)
            found[f"diversity ({embedder})"] = float(np.mean(list(by_prompt.values())))
        except DataError:
            pass  # no prompt is left with two pictures
    if base is not None and len(own) >= FEWEST and np.isfinite(own).all() and np.isfinite(base).all():
        found[f"Frechet distance ({embedder})"] = frechet_distance(own, base)
    return found

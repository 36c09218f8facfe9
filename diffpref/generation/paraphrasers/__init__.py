"""Who says a caption in other words: rules, DIPPER and its kin, language models, or any callable.

A paraphraser of a name is one file here whose class of options loads it, or comes from another distribution
(entry-point group ``diffpref.generation.paraphrasers``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from diffpref.core.registry import Registry

__all__ = ["Paraphraser", "ParaphraserOptions", "registry"]


class Paraphraser(Protocol):
    """Texts, how far from them to go, and a seed each, to a text each.

    What is returned is a function of its own text, the level and the seed. An attribute ``identity`` says what decides
    on it besides; of a callable without, its name does.
    """

    def __call__(self, texts: Sequence[str], level: int, seeds: Sequence[int]) -> Sequence[str]:
        """Return a paraphrase of each text; ``level`` is the share of words to change, 1 to 100 percent."""
        ...


class ParaphraserOptions(Protocol):
    """What is registered: a section of options that loads a paraphraser."""

    def load(self, device: str) -> Paraphraser:
        """Return the paraphraser; networks lie on the device."""
        ...


registry: Registry[type[ParaphraserOptions]] = Registry("paraphraser", "diffpref.generation.paraphrasers", lazy=True)

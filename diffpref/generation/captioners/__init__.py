"""Who says what a picture shows: rules, vision-language models, or any callable.

A captioner of a name is one file here whose class of options loads it, or comes from another distribution (entry-point
group ``diffpref.generation.captioners``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from diffpref.core.contracts import Media
from diffpref.core.registry import Registry

__all__ = ["Caption", "Captioner", "CaptionerOptions", "registry"]

Caption: TypeAlias = str


class Captioner(Protocol):
    """Pictures or clips, the prompts that they answer, and a seed each, to a caption each.

    A caption is a function of its own picture, prompt and seed. An attribute ``identity`` says what decides on it
    besides; of a callable without, its name does.
    """

    def __call__(self, media: Sequence[Media], prompts: Sequence[str], seeds: Sequence[int]) -> Sequence[Caption]:
        """Return a caption for each item."""
        ...


class CaptionerOptions(Protocol):
    """What is registered: a section of options that loads a captioner."""

    def load(self, device: str) -> Captioner:
        """Return the captioner; networks lie on the device."""
        ...


registry: Registry[type[CaptionerOptions]] = Registry("captioner", "diffpref.generation.captioners", lazy=True)

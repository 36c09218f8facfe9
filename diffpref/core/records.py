"""Preference data at rest: a prompt, its candidates, and what is known about which is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Candidate", "Caption", "Judgement", "PromptMedia", "Record", "Score"]


@dataclass(frozen=True)
class Caption:
    """A text that describes one candidate. ``kind`` says where it comes from: ``"prompt"``, ``"generated"`` …"""

    kind: str
    text: str


@dataclass(frozen=True)
class Score:
    """What one reward model said of one candidate."""

    name: str
    version: str
    value: float


@dataclass(frozen=True)
class Candidate:
    """One answer to a prompt: an image held as encoded bytes or as a path, where it comes from, how it was scored."""

    bytes: bytes | None = None
    path: str | None = None
    text: str | None = None
    sha256: str = ""
    generator: str = ""
    seed: int | None = None
    captions: tuple[Caption, ...] = ()
    scores: tuple[Score, ...] = ()
    label: float | None = None


@dataclass(frozen=True)
class PromptMedia:
    """A picture, video or sound that belongs to the prompt: what is to be edited, animated or described."""

    kind: str = "image"
    bytes: bytes | None = None
    path: str | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Judgement:
    """``probability`` that candidate ``first`` is better than ``second``; 0.5 is a tie. No start and end: the whole."""

    first: int
    second: int
    probability: float
    weight: float = 1.0
    annotator: str = ""
    aspect: str = "overall"
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Record:
    """A prompt with its media, its candidates, and what is known about which is better.

    Pairs, ranks and lists are views of it.
    """

    id: str
    prompt: str
    candidates: tuple[Candidate, ...]
    judgements: tuple[Judgement, ...] = ()
    source: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[PromptMedia, ...] = ()

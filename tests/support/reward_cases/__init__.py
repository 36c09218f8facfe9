"""What the common tests of rewards need of each: one file a reward, found by its name.

A file ``tests/support/reward_cases/<reward>.py`` has ``CASE``: how to write a tiny checkpoint laid out as the published
one is, with random weights and the real classes, and items that it may score. ``tests/rewards/test_reward_suite.py``
does the rest. What is special to a reward has tests of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["RewardCase", "cases", "clips", "no_weights", "pictures", "sentences"]

COLOURS = ("red", "blue", "green", "white")
SHAPES = ("circle", "square", "ring", "cross")


def pictures(count: int, size: tuple[int, int] = (64, 64)) -> list[np.ndarray]:
    """Return different (H, W, 3) uint8 pictures; a longer list begins as a shorter one."""
    return [np.random.default_rng(7 + i).integers(0, 256, (*size, 3), dtype=np.uint8) for i in range(count)]


def clips(count: int, size: tuple[int, int] = (32, 32), frames: int = 6) -> list[np.ndarray]:
    """Return different (F, H, W, 3) uint8 videos."""
    return [np.random.default_rng(11 + i).integers(0, 256, (frames, *size, 3), dtype=np.uint8) for i in range(count)]


def sentences(count: int) -> list[str]:
    """Return different prompts."""
    return [f"a {COLOURS[i % 4]} {SHAPES[(i // 4) % 4]} number {i}" for i in range(count)]


def no_weights(folder: Path) -> str | None:
    """Write nothing: the reward has no weights."""
    return None


@dataclass(frozen=True)
class RewardCase:
    """One reward for the common tests.

    Args:
        name: registry name.
        build: writes the tiny checkpoint into a folder and returns what to pass as ``path``.
        options: of `diffpref.rewards.load`.
        media: N -> N different items of the reward's kind; a longer list begins as a shorter one.
        prompts: N -> N prompts.
        metadata: N -> N entries, where the reward reads them.
        prompt_matters: whether another prompt must change the score.
        tolerance: how far a score may move with its batch.
    """

    name: str
    build: Callable[[Path], str | None] = no_weights
    options: Mapping[str, Any] = field(default_factory=dict)
    media: Callable[[int], Sequence[Any]] = pictures
    prompts: Callable[[int], Sequence[str]] = sentences
    metadata: Callable[[int], Sequence[Mapping[str, Any]]] | None = None
    prompt_matters: bool = True
    tolerance: float = 1e-4


def cases() -> dict[str, RewardCase]:
    """Return every case by the name of its reward."""
    found = [importlib.import_module(f"{__name__}.{m.name}").CASE for m in pkgutil.iter_modules(__path__)]
    return {case.name: case for case in found}

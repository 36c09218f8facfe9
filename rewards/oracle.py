"""The oracle of the shapes worlds as a reward: how many facts of its caption a picture or clip shows. No one trains on
it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import to_uint8
from diffpref.rewards import registry
from diffpref.rewards._media import as_clips, as_pictures, check_lengths, is_clip
from diffpref.shapes.grammar import Caption
from diffpref.shapes.motion import SIDE, MovingCaption
from diffpref.shapes.motion_oracle import MOTION_FACTS, motion_facts, watch
from diffpref.shapes.oracle import FACTS, facts
from diffpref.shapes.render import SIZE

__all__ = ["MEASURED", "Oracle", "load_oracle", "shapes_facts"]

MEASURED = ("dynamic_degree", "steady_light")
"""What is told of a clip besides the facts of its caption."""


class Oracle:
    """Counts facts: of a picture with a caption of the still shapes, of a clip with one of the moving shapes.

    Its aspects are the single facts of both worlds, 1 or 0, and for clips `MEASURED`: how far the object goes from
    frame to frame, in pixels, and 1 minus its `diffpref.shapes.motion_oracle.Motion.flicker` over 255. What is not of
    an item's world is NaN.

    Args:
        output: ``"facts"``: 0..6 of a picture, 0..5 of a clip; ``"all"``: 1 where all of them hold, else 0.
    """

    def __init__(self, output: Literal["facts", "all"] = "facts") -> None:
        self.output = output

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range, aspects."""
        high = float(len(FACTS)) if self.output == "facts" else 1.0
        return RewardInfo(
            name="oracle",
            version=f"2+{self.output}",
            licence="Apache-2.0",
            range=(0.0, high),
            also=("video",),
            aspects=(*FACTS, *MOTION_FACTS, *MEASURED),
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N pictures of 64 x 64 pixels or clips of 32 x 32 pixels, and N captions of theirs.

        Raises:
            ShapeError: not as many captions as items.
            DataError: an item of another size, a clip of one frame, or a prompt that is no caption of its world.
        """
        check_lengths("oracle", media, prompts)
        found = [list(_read(number, *asked).values()) for number, asked in enumerate(zip(media, prompts, strict=True))]
        return torch.tensor([sum(one) if self.output == "facts" else all(one) for one in found], dtype=torch.float32)

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each aspect, NaN where it is not of the item's world; raises as `score` does."""
        check_lengths("oracle", media, prompts)
        rows: list[dict[str, float]] = []
        for number, (item, prompt) in enumerate(zip(media, prompts, strict=True)):
            row: dict[str, float] = {name: float(holds) for name, holds in _read(number, item, prompt).items()}
            rows.append(row | self.watched(item) if is_clip(item) else row)
        return {name: torch.tensor([row.get(name, math.nan) for row in rows]) for name in self.info.aspects}

    @staticmethod
    def watched(clip: Media) -> dict[str, float]:
        """Return what is told of a clip whatever its caption, by the names of `MEASURED`.

        Raises:
            DataError: a clip of another size, or of one frame.
        """
        seen = watch(_clip(clip))
        return {"dynamic_degree": seen.dynamic_degree, "steady_light": 1 - seen.flicker / 255}


def shapes_facts(item: Media, prompt: str) -> dict[str, bool]:
    """Tell which facts of a caption hold: of the still shapes for a picture, of the moving ones for a clip.

    Raises:
        DataError: an item of another size, a clip of one frame, or a prompt that is no caption of its world.
    """
    if is_clip(item):
        return motion_facts(_clip(item), MovingCaption.parse(prompt))
    picture = to_uint8(item)
    if picture.shape[:2] != (SIZE, SIZE):
        raise DataError(f"the oracle reads pictures of {SIZE} x {SIZE} pixels, got {picture.shape[:2]}")
    return facts(picture, Caption.parse(prompt))


def _read(number: int, item: Media, prompt: str) -> dict[str, bool]:
    (shown,) = (as_clips if is_clip(item) else as_pictures)("oracle", [item], number)
    try:
        return shapes_facts(shown, prompt)
    except DataError as error:
        raise DataError(f"reward 'oracle', item {number}: {error}") from error


def _clip(item: Media) -> np.ndarray:
    frames: np.ndarray = as_clips("oracle", [item])[0].frames
    if frames.shape[1:3] != (SIDE, SIDE) or len(frames) < 2:
        raise DataError(f"the oracle reads clips of {SIDE} x {SIDE} pixels and two frames or more, got {frames.shape}")
    return frames


@registry.register("oracle")
def load_oracle(path: str | None = None, *, output: Literal["facts", "all"] = "facts") -> Reward:
    """Return the oracle; it has no weights.

    Raises:
        ConfigError: a path is given.
    """
    if path is not None:
        raise ConfigError(f"reward 'oracle' has no weights and takes no path, got '{path}'")
    return Oracle(output)

"""How steady a video is from frame to frame, as VBench's temporal flickering says it. No model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._frames import moving_pixels
from diffpref.rewards._media import check_lengths

__all__ = ["Flicker", "load_flicker"]


class Flicker:
    """Scores a video by 1 minus the mean absolute difference of consecutive frames, of pixels in 0..1: 1 for a still.

    Higher is steadier. VBench asks it of scenes that should stand still, 25 videos a prompt, after static ones are
    picked out, and puts 0.6293..1 on 0..1 in its total; of other videos the score mostly says how much moves, and a
    model trained on it alone learns to make stills: look at `motion` beside it.

    Source: Huang et al., VBench, CVPR 2024; Vchitect/VBench ``temporal_flickering.py``, (255 - error) / 255.
    """

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return RewardInfo(
            name="flicker", version="1", licence="Apache-2.0", range=(0.0, 1.0), needs_prompt=False, media="video"
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N videos; prompts are not read.

        Raises:
            ShapeError: not as many prompts as videos.
            DataError: an item is no video, or one of a single frame.
        """
        check_lengths("flicker", media, prompts, metadata)
        scores = [1 - (pixels[1:] - pixels[:-1]).abs().mean() for pixels in moving_pixels("flicker", media)]
        return torch.stack(scores) if scores else torch.zeros(0)


@registry.register("flicker")
def load_flicker(path: str | None = None) -> Reward:
    """Return the reward; it has no weights.

    Raises:
        ConfigError: a path is given.
    """
    if path is not None:
        raise ConfigError(f"reward 'flicker' has no weights and takes no path, got '{path}'")
    return Flicker()

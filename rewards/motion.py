"""How much moves in a video: the mean change from frame to frame. No model, and no optical flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from diffpref.core.annotations import PositiveInt, Probability
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._frames import moving_pixels
from diffpref.rewards._media import check_lengths

__all__ = ["Motion", "load_motion"]

Output: TypeAlias = Literal["amount", "degree"]


class Motion:
    """Scores how much a video changes. It is there to see whether a model has learnt to stand still.

    A cut or flickering light counts too: look at `flicker` and at a reward of quality beside it. VBench's dynamic
    degree, which reads optical flow, is another number.

    Args:
        output: ``"amount"``: the mean absolute change of a pixel from frame to frame, 0..1 of its range; ``"degree"``:
            the share of changes from frame to frame that exceed ``threshold``.
        threshold: of a change that counts, of the range of a pixel.
        block: pixels are first averaged over squares of this side, so that noise is not taken for motion.
    """

    def __init__(self, output: Output = "amount", threshold: float = 0.02, block: int = 4) -> None:
        self.output, self.threshold, self.block = output, threshold, block

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        degree = f"degree-{self.threshold:g}" if self.output == "degree" else "amount"
        return RewardInfo(
            name="motion",
            version=f"1+{degree}+block-{self.block}",
            licence="Apache-2.0",
            range=(0.0, 1.0),
            needs_prompt=False,
            media="video",
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N videos; prompts are not read.

        Raises:
            ShapeError: not as many prompts as videos.
            DataError: an item is no video, or one of a single frame.
        """
        check_lengths("motion", media, prompts, metadata)
        scores = [self._score(pixels) for pixels in moving_pixels("motion", media)]
        return torch.stack(scores) if scores else torch.zeros(0)

    def _score(self, pixels: Tensor) -> Tensor:
        block = min(self.block, *pixels.shape[-2:])
        blurred = functional.avg_pool2d(pixels, block, ceil_mode=True)
        moved = (blurred[1:] - blurred[:-1]).abs().flatten(1).mean(dim=1)
        return moved.mean() if self.output == "amount" else (moved > self.threshold).float().mean()


@registry.register("motion")
def load_motion(
    path: str | None = None, *, output: Output = "amount", threshold: Probability = 0.02, block: PositiveInt = 4
) -> Reward:
    """Return the reward; it has no weights. The options are those of `Motion`.

    Raises:
        ConfigError: a path is given.
    """
    if path is not None:
        raise ConfigError(f"reward 'motion' has no weights and takes no path, got '{path}'")
    return Motion(output, threshold, block)

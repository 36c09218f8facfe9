"""A video scored by its frames: the mean of any image reward over frames evenly spread, HPS(V) in VideoDPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.rewards import registry
from diffpref.rewards._frames import middles
from diffpref.rewards._media import as_clips, check_lengths
from diffpref.rewards._nested import Nested, inner_reward
from diffpref.rewards._weights import Precision

__all__ = ["FrameMean", "load_frame_mean"]

Reduction: TypeAlias = Literal["mean", "min", "last"]


class FrameMean:
    """Scores frames of a video, each by itself: what moves between them is not seen.

    Args:
        inner: scores images.
        frames: T, how many at most; they lie in the middle of T equal parts of the video.
        reduction: ``"mean"`` over the T; ``"min"``: the worst of them; ``"last"``: the video's last frame alone.
    """

    def __init__(self, inner: Reward, frames: int = 8, reduction: Reduction = "mean") -> None:
        self.inner, self.frames, self.reduction = inner, frames, reduction

    @property
    def info(self) -> RewardInfo:
        """What the inner reward says of itself, with the frames in the version; ``pair_scale`` is the one of images."""
        inner = self.inner.info
        which = "last" if self.reduction == "last" else f"{self.reduction}-of-{self.frames}"
        return RewardInfo(
            name="frame_mean",
            version=f"{inner.name}@{inner.version}+{which}",
            licence=inner.licence,
            range=inner.range,
            pair_scale=inner.pair_scale,
            needs_prompt=inner.needs_prompt,
            needs_metadata=inner.needs_metadata,
            differentiable=inner.differentiable,
            media="video",
            preprocessing=inner.preprocessing,
        )

    def places(self, total: int) -> list[int]:
        """Return which frames of a video of so many are scored."""
        return [total - 1] if self.reduction == "last" else middles(total, self.frames)

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N videos and N prompts; NaN where a frame that counts has no score.

        Raises:
            ShapeError: not as many prompts as videos.
            DataError: an item is no video, or as the inner reward says.
        """
        check_lengths("frame_mean", media, prompts, metadata)
        scores = []
        for number, clip in enumerate(as_clips("frame_mean", media)):
            pictures = [clip.frames[place] for place in self.places(len(clip.frames))]
            told = None if metadata is None else [metadata[number]] * len(pictures)
            try:
                frames = self.inner.score(pictures, [prompts[number]] * len(pictures), told)
            except DataError as error:
                raise DataError(f"reward 'frame_mean', frames of item {number}: {error}") from error
            scores.append(self._reduced(frames))
        return torch.stack(scores) if scores else torch.zeros(0)

    def _reduced(self, frames: Tensor) -> Tensor:
        return frames.min(dim=-1).values if self.reduction == "min" else frames.mean(dim=-1)


class _DifferentiableFrameMean(FrameMean):
    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, F, 3, H, W) in [0, 1].

        Raises:
            ShapeError: another shape, or not as many prompts as videos.
        """
        if pixels.dim() != 5:
            raise ShapeError(f"reward 'frame_mean': expected videos (N, F, 3, H, W), got {tuple(pixels.shape)}")
        check_lengths("frame_mean", pixels, prompts)
        if not len(pixels):
            return pixels.new_zeros(0, dtype=torch.float32)
        places = self.places(pixels.shape[1])
        repeated = [prompt for prompt in prompts for _ in places]
        inner: Any = self.inner
        frames: Tensor = inner.score_tensors(pixels[:, places].flatten(0, 1), repeated)
        return self._reduced(frames.view(len(pixels), len(places)))


@registry.register("frame_mean")
def load_frame_mean(
    path: str | None = None,
    *,
    reward: Nested | None = None,
    frames: PositiveInt = 8,
    reduction: Reduction = "mean",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
) -> Reward:
    """Return an image reward as one of videos.

    Args:
        path: not taken; the inner reward has its own.
        reward: what scores the frames, with its path and options: ``{pickscore: {path: ..., output: cosine}}``.
        frames: how many at most.
        reduction: see `FrameMean`.
        device: where the inner reward runs, unless it says otherwise.
        precision: of an inner reward that has that option and does not say otherwise.
        micro_batch: the same.

    Raises:
        ConfigError: a path, no inner reward, or one that scores no images.
    """
    if path is not None or reward is None:
        given = f"path '{path}'" if path is not None else "none"
        raise ConfigError(
            f"reward 'frame_mean' takes an inner reward, such as reward: {{pickscore: {{path: ...}}}}, got {given}"
        )
    shared = {"device": device, "precision": precision, "micro_batch": micro_batch}
    inner = inner_reward("frame_mean", reward, shared)
    if inner.info.media != "image":
        raise ConfigError(f"reward 'frame_mean' takes a reward of images, '{inner.info.name}' is of {inner.info.media}")
    kind = _DifferentiableFrameMean if inner.info.differentiable else FrameMean
    return kind(inner, frames, reduction)

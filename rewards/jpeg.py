"""How large a picture is as JPEG: rewards of DDPO (Black et al., arXiv 2305.13301) and Flow-GRPO that need no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image, features
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._media import as_pictures, check_lengths

__all__ = ["QUALITY", "JpegReward", "Output", "kilobytes", "load_jpeg"]

QUALITY = 95
Output: TypeAlias = Literal["compressibility", "compressibility_500", "incompressibility"]
_FACTORS = {"compressibility": -1.0, "compressibility_500": -1 / 500, "incompressibility": 1.0}


def kilobytes(picture: Image.Image) -> float:
    """Return the size of an RGB picture as JPEG of quality 95, in units of 1,000 bytes."""
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=QUALITY)
    return stream.tell() / 1000


class JpegReward:
    """Scores a picture by its size as JPEG.

    Args:
        output: see `load_jpeg`.
    """

    def __init__(self, output: Output) -> None:
        self._factor = _FACTORS[output]
        ends = sorted((0.0, 500 * self._factor))
        self._info = RewardInfo(
            name="jpeg",
            version=f"q{QUALITY}+{output}+libjpeg{features.version_codec('jpg')}",
            licence="Apache-2.0",
            range=(ends[0], ends[1]),
            needs_prompt=False,
            preprocessing="rgb",
        )

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N pictures; prompts are counted only.

        Raises:
            ShapeError: not as many prompts as pictures.
            DataError: an item is not a picture.
        """
        check_lengths("jpeg", media, prompts, metadata)
        sizes = [kilobytes(picture) for picture in as_pictures("jpeg", media)]
        return self._factor * torch.tensor(sizes, dtype=torch.float32)


@registry.register("jpeg")
def load_jpeg(path: str | None = None, *, output: Output = "compressibility") -> Reward:
    """Return the reward. Sizes follow from the build of libjpeg, which is therefore part of the version.

    Args:
        path: must be left out.
        output: ``"compressibility"``: minus the size at quality 95 in 1,000 bytes (DDPO); ``"compressibility_500"``:
            that / 500 (Flow-GRPO); ``"incompressibility"``: the size itself (both).

    Raises:
        ConfigError: a path.
    """
    if path is not None:
        raise ConfigError(f"reward 'jpeg' takes no path, got '{path}': it has no weights")
    return JpegReward(output)

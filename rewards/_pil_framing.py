"""Pictures into a model's square as torchvision does it for published rewards: resize first, then cut and normalise."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from diffpref.rewards._dual_encoder import Framing, cut

__all__ = ["pil_pixels"]


def pil_pixels(pictures: list[Image.Image], framing: Framing) -> Tensor:
    """Return (N, 3, S, S) float32 of RGB pictures: short side to S (bicubic, on bytes), centre, [0, 1], normalised."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    transform = Compose(
        [
            Resize(framing.size, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(framing.size),
            ToTensor(),
            Normalize(framing.mean, framing.std),
        ]
    )
    return torch.stack([transform(cut(picture)) for picture in pictures])

"""What a denoiser is told of a picture: CLIP's image tower behind the resizing of Stable Video Diffusion's pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from diffpref.models.base import Network

__all__ = ["PictureEncoder", "resized_smoothly"]

LEAST_BLUR = 1e-3


@dataclass(frozen=True)
class PictureEncoder:
    """An image processor of transformers, of which the mean and the std of pixels are read, and CLIP's image tower."""

    processor: Any
    model: Network

    def embed(self, images: Tensor) -> Tensor:
        """Return (N, D) projected embeddings of (N, 3, H, W) pictures in [-1, 1], shrunk as in SVD's pipeline."""
        small = resized_smoothly(images.to(self.model.device), int(self.model.config.image_size))
        mean, std = (
            small.new_tensor(numbers).view(1, -1, 1, 1)
            for numbers in (self.processor.image_mean, self.processor.image_std)
        )
        pixels = ((small + 1) / 2 - mean) / std
        return self.model(pixels.to(self.model.dtype)).image_embeds


def resized_smoothly(images: Tensor, side: int) -> Tensor:
    """Resize (N, C, H, W) pictures to a square: blurred by as much as they shrink, then bicubic, corner on corner.

    For a shrinking by f the blur is a Gaussian of ``(f - 1) / 2`` pixels, over a window of twice that on either side.
    This is what diffusers' ``StableVideoDiffusionPipeline`` does before its image encoder.
    """
    blurred = images
    for dim in (-1, -2):
        blurred = _blurred(blurred, dim, max((images.shape[dim] / side - 1) / 2, LEAST_BLUR))
    return interpolate(blurred, size=(side, side), mode="bicubic", align_corners=True)


def _blurred(images: Tensor, dim: int, sigma: float) -> Tensor:
    """Blur along one of the last two dimensions; edges are mirrored."""
    half = max(int(max(4 * sigma, 3)) // 2, 1)
    offsets = torch.arange(-half, half + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    along = (1, -1) if dim == -1 else (-1, 1)
    kernel = weights.view(1, 1, *along).repeat(images.shape[1], 1, 1, 1)
    margins = (half, half, 0, 0) if dim == -1 else (0, 0, half, half)
    return conv2d(pad(images, margins, mode="reflect"), kernel, groups=images.shape[1])

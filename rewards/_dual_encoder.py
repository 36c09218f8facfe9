"""Scores of models that embed images and texts in one space: the cosine of an image with its own prompt.

Networks may run in half precision, but the embeddings are normalised and multiplied in float32. Items never meet: row i
of the images is multiplied with row i of the texts, so that a score does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffpref.core.contracts import Media
from diffpref.core.errors import ShapeError
from diffpref.rewards._media import as_pictures, check_lengths

__all__ = ["DualEncoder", "Framing", "cosines", "cut", "image_directions", "paired_cosine", "tensor_cosines"]

MAX_ASPECT = 16


@dataclass(frozen=True)
class Framing:
    """How a model wants its pictures: resized (antialiased) to a square of which nothing is seen beyond, normalised.

    Args:
        size: side of the square, pixels.
        mean: of each channel, in [0, 1].
        std: of each channel.
        interpolation: of the resizing.
        squash: both sides are resized to the square's; else the short one is, and the centre cut.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    squash: bool = False

    @property
    def name(self) -> str:
        """What stands in cache keys; mean and std are told by the version of the weights."""
        return f"rgb+{self.interpolation}{self.size}+{'squash' if self.squash else 'centre'}"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Frame (N, 3, H, W) pixels in [0, 1]; gradients pass through.

        Raises:
            ShapeError: another shape.
        """
        if pixels.dim() != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ShapeError(f"expected float pixels (N, 3, H, W) in [0, 1], got {tuple(pixels.shape)} {pixels.dtype}")
        height, width = pixels.shape[-2:]
        short = min(height, width)
        size = (int(self.size * height / short), int(self.size * width / short))
        size = (self.size, self.size) if self.squash else size
        if size != (height, width):
            pixels = functional.interpolate(pixels.float(), size, mode=self.interpolation, antialias=True).clamp(0, 1)
        top, left = (pixels.shape[-2] - self.size) // 2, (pixels.shape[-1] - self.size) // 2
        pixels = pixels[..., top : top + self.size, left : left + self.size]
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class DualEncoder:
    """The two towers of a model, whatever library they come from.

    Args:
        encode_images: (N, 3, S, S) normalised pixels -> (N, D).
        encode_prompts: N texts -> (N, D).
        preprocess: RGB images of any size -> (N, 3, S, S) float32 normalised pixels.
        framing: the same as ``preprocess`` for tensors, differentiable.
        logit_scale: tau, by which the model multiplies cosines.
    """

    encode_images: Callable[[Tensor], Tensor]
    encode_prompts: Callable[[list[str]], Tensor]
    preprocess: Callable[[list[Image.Image]], Tensor]
    framing: Framing
    logit_scale: float


def paired_cosine(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Return the cosine of each image with its text.

    Args:
        image_embeds: (N, D) of any norm.
        text_embeds: (N, D), or (1, D) for one text.

    Returns:
        (N,) float32; float64 for float64 embeddings.
    """
    if image_embeds.dtype != torch.float64:
        image_embeds, text_embeds = image_embeds.float(), text_embeds.float()
    return (functional.normalize(image_embeds, dim=-1) * functional.normalize(text_embeds, dim=-1)).sum(dim=-1)


def _prompt_rows(encoder: DualEncoder, prompts: Sequence[str], micro_batch: int) -> Tensor:
    """Return (N, D) text embeddings; each different prompt is encoded once."""
    different = list(dict.fromkeys(prompts))
    embeds = torch.cat(
        [encoder.encode_prompts(different[i : i + micro_batch]) for i in range(0, len(different), micro_batch)]
    )
    place = {prompt: row for row, prompt in enumerate(different)}
    return embeds[[place[prompt] for prompt in prompts]]


def cut(picture: Image.Image) -> Image.Image:
    """Return the centre of a picture that is much longer than wide, which would grow huge when its short side does."""
    width, height = picture.size
    long = MAX_ASPECT * min(width, height)  # of a thinner picture the centre is all that the square shows
    if max(width, height) > long:
        left, top = max(0, (width - long) // 2), max(0, (height - long) // 2)
        picture = picture.crop((left, top, left + min(width, long), top + min(height, long)))
    return picture


def _image_parts(
    owner: str, encoder: DualEncoder, media: Sequence[Media], micro_batch: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of items with their (n, D) embeddings."""
    for start in range(0, len(media), micro_batch):
        rows = slice(start, start + micro_batch)
        pictures = [cut(picture) for picture in as_pictures(owner, media[rows], rows.start)]
        yield rows, encoder.encode_images(encoder.preprocess(pictures))


@torch.no_grad()
def image_directions(owner: str, encoder: DualEncoder, media: Sequence[Media], micro_batch: int) -> Tensor:
    """Return (N, D) float32 on the CPU: the items' embeddings, each of norm 1; (0, 0) for no items.

    Raises:
        DataError: an item is not an image.
    """
    parts = [
        functional.normalize(embeds.float(), dim=-1).cpu()
        for _, embeds in _image_parts(owner, encoder, media, micro_batch)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 0)


@torch.no_grad()
def cosines(
    owner: str, encoder: DualEncoder, media: Sequence[Media], prompts: Sequence[str], micro_batch: int
) -> Tensor:
    """Return (N,) float32 on the CPU: the cosine of each item with its prompt.

    Args:
        owner: the reward, for messages.
        encoder: the model.
        media: N images of any kind and size.
        prompts: N texts.
        micro_batch: how many run at once; changes speed and memory only.

    Raises:
        ShapeError: not as many prompts as images.
        DataError: an item is not an image.
    """
    check_lengths(owner, media, prompts)
    if not len(media):
        return torch.zeros(0)
    texts = _prompt_rows(encoder, prompts, micro_batch)
    parts = _image_parts(owner, encoder, media, micro_batch)
    return torch.cat([paired_cosine(embeds, texts[rows]).cpu() for rows, embeds in parts])


def tensor_cosines(
    owner: str, encoder: DualEncoder, pixels: Tensor, prompts: Sequence[str], micro_batch: int
) -> Tensor:
    """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1].

    Raises:
        ShapeError: wrong shape, or not as many prompts as images.
    """
    check_lengths(owner, pixels, prompts)
    if not len(pixels):
        return pixels.new_zeros(0, dtype=torch.float32)
    with torch.no_grad():
        texts = _prompt_rows(encoder, prompts, micro_batch)
    framed = encoder.framing(pixels)
    embeds = [encoder.encode_images(part) for part in framed.split(micro_batch)]
    return paired_cosine(torch.cat(embeds), texts)

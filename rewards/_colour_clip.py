"""Colours of objects by CLIP: each object is cut out, its surroundings greyed, and compared with sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffpref.core.assets import resolve
from diffpref.rewards._dual_encoder import DualEncoder, cut
from diffpref.rewards._hf_clip import load_hf_clip
from diffpref.rewards._objects import Found
from diffpref.rewards._weights import content_version, licence_of

__all__ = ["COLOUR_CLIP_ID", "PALETTE", "ClipColours", "cut_out", "load_clip_colours"]

COLOUR_CLIP_ID = "openai/clip-vit-large-patch14"
PALETTE = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
"""The benchmark's sentences are constants of its numbers, as the palette and the grey are."""
GREY = (153, 153, 153)
MICRO_BATCH = 16


def cut_out(picture: Image.Image, one: Found) -> Image.Image:
    """Return the box of an object, with grey where its mask is not; at least one pixel, within the picture."""
    if one.mask is not None:
        mask = Image.fromarray(one.mask.astype("uint8") * 255)
        picture = Image.composite(picture, Image.new("RGB", picture.size, GREY), mask)
    width, height = picture.size
    left, top, right, bottom = (round(side) for side in one.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return picture.crop((left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)))


class ClipColours:
    """Names the colour whose sentences, of the object's class, are nearest to its picture.

    Args:
        encoder: the model.
        version: of its weights.
        licence: of its weights.
        palette: the colours.
    """

    def __init__(self, encoder: DualEncoder, version: str, licence: str, palette: Sequence[str] = PALETTE) -> None:
        self.encoder, self.version, self.licence, self.palette = encoder, version, licence, tuple(palette)
        self._directions: dict[str, Tensor] = {}

    def _of_class(self, name: str) -> Tensor:
        """Return (colours, D): the mean direction of each colour's sentences."""
        if name not in self._directions:
            texts = [template.format(colour=colour, name=name) for colour in self.palette for template in TEMPLATES]
            embeds = functional.normalize(self.encoder.encode_prompts(texts).float(), dim=-1)
            means = embeds.view(len(self.palette), len(TEMPLATES), -1).mean(dim=1)
            self._directions[name] = functional.normalize(means, dim=-1)
        return self._directions[name]

    @torch.no_grad()
    def __call__(self, picture: Image.Image, objects: Sequence[Found]) -> list[str | None]:
        """Return a colour of the palette for each object."""
        named: list[str | None] = []
        for start in range(0, len(objects), MICRO_BATCH):
            part = objects[start : start + MICRO_BATCH]
            pixels = self.encoder.preprocess([cut(cut_out(picture, one)) for one in part])
            embeds = functional.normalize(self.encoder.encode_images(pixels).float(), dim=-1)
            for embed, one in zip(embeds, part, strict=True):
                named.append(self.palette[int((self._of_class(one.name) @ embed).argmax())])
        return named


def load_clip_colours(path: str, device: str) -> ClipColours:
    """Load a transformers CLIP model, in float32.

    Raises:
        ModelError: not a CLIP model, or no weights that may be loaded.
    """
    folder = resolve(path)
    encoder, commit = load_hf_clip(folder, processor=None, device=device, precision="float32", allow_pickle=False)
    version = content_version(Path(folder)) if Path(folder).is_dir() else f"{folder}@{commit[:12]}"
    return ClipColours(encoder, version, licence_of(path, "see the model's card"))

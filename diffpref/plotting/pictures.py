"""Pictures side by side: base left, aligned right, with the caption and a mark of how much of it is right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffpref.core.errors import DataError
from diffpref.plotting.canvas import BLUE, GREY, INK, LINE, ORANGE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

__all__ = ["PictureRow", "as_uint8", "caption_font", "drawable", "picture_grid", "resize", "sized_font"]

GAP, MARGIN, TILE = 8, 22, 176  # pixels; a picture smaller than TILE is enlarged by a whole number
CAPTION_SIZE, MARK_SIZE = 16, 13
MAX_DOTS = 10
_PARAGRAPHS = dict.fromkeys(map(ord, "\n\x1c\x1d\x1e\x85\u2029"), " ")


class PictureRow(NamedTuple):
    """One pair. ``marks``: (right, total) facts of the base and of the aligned picture, where they were counted."""

    caption: str
    base: Any
    aligned: Any
    marks: tuple[tuple[int, int], tuple[int, int]] | None = None


def as_uint8(image: Any) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8.

    Raises:
        DataError: neither a PIL image nor such an array: the range of floats is never guessed.
    """
    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"expected a PIL image or a (H, W, 3) uint8 array, got {what}")
    return image


def resize(image: Any, side: int) -> Image:
    """Return a picture whose longer side is about ``side`` pixels: enlarged by whole numbers, or reduced."""
    from PIL import Image

    picture = Image.fromarray(as_uint8(image))
    longest = max(picture.size)
    factor = -(-side // longest) if longest < side else side / longest
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def sized_font(size: int) -> FreeTypeFont:
    """Return the font of all pictures, in pixels."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def drawable(text: str) -> str:
    """Return a text as one paragraph: Pillow's layout of text fails on separators of paragraphs."""
    return text.translate(_PARAGRAPHS)


def caption_font() -> FreeTypeFont:
    """Return the font of captions."""
    return sized_font(CAPTION_SIZE)


def _mark(draw: ImageDraw, x: int, y: int, mark: tuple[int, int], colour: str) -> None:
    """Draw one dot a fact, full where it holds, and the numbers."""
    right, total = mark
    if total <= MAX_DOTS:
        for i in range(total):
            box = (x + 13 * i, y + 3, x + 13 * i + 9, y + 12)
            draw.ellipse(box, fill=colour if i < right else None, outline=colour if i < right else GREY)
        x += 13 * total + 4
    draw.text((x, y), f"{right}/{total}", fill=INK, font=sized_font(MARK_SIZE))


def picture_grid(
    rows: Sequence[PictureRow | tuple[Any, ...]],
    *,
    columns: int = 3,
    tile: int = TILE,
    labels: tuple[str, str] = ("base", "aligned"),
) -> Image:
    """Return one image that shows pairs of pictures, base left and aligned right.

    Args:
        rows: the pairs; all pictures of one size.
        columns: pairs next to each other.
        tile: side of a shown picture, pixels.
        labels: what the two are called.

    Raises:
        DataError: no pairs, or pictures of different sizes.
    """
    from PIL import Image, ImageDraw

    pairs = [PictureRow(*row) for row in rows]
    if not pairs:
        raise DataError("a grid needs at least one pair of pictures")
    shown = [(resize(pair.base, tile), resize(pair.aligned, tile)) for pair in pairs]
    if len(sizes := {picture.size for pair in shown for picture in pair}) != 1:
        raise DataError(f"a grid needs pictures of one size, got {sorted(sizes)}")
    width, height = sizes.pop()
    columns = min(columns, len(pairs))
    font, mark_font = caption_font(), sized_font(MARK_SIZE)
    characters = max(8, int((2 * width + GAP) / (0.56 * CAPTION_SIZE)))  # mean advance of the font, measured
    captions = [
        textwrap.wrap(drawable(pair.caption), characters, max_lines=3, placeholder=" ...") or [""] for pair in pairs
    ]
    line = CAPTION_SIZE + 5
    caption_height = line * max(map(len, captions)) + 4
    mark_height = MARK_SIZE + 10 if any(pair.marks for pair in pairs) else 0
    cell = (2 * width + GAP + MARGIN, caption_height + height + mark_height + MARGIN)
    num_rows = -(-len(pairs) // columns)
    header = MARK_SIZE + 12
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, num_rows * cell[1] + MARGIN + header), "white")
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        left = MARGIN + column * cell[0]
        draw.text((left, MARGIN // 2), drawable(labels[0]), fill=ORANGE, font=mark_font)
        draw.text((left + width + GAP, MARGIN // 2), drawable(labels[1]), fill=BLUE, font=mark_font)
    for index, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
        left, top = MARGIN + index % columns * cell[0], MARGIN + header + index // columns * cell[1]
        for number, text in enumerate(caption):
            draw.text((left, top + number * line), text, fill=INK, font=font)
        top += caption_height
        for side in (0, 1):
            x = left + side * (width + GAP)
            sheet.paste(shown[index][side], (x, top))
            draw.rectangle((x - 1, top - 1, x + width, top + height), outline=LINE)
            if pair.marks:
                _mark(draw, x, top + height + 5, pair.marks[side], (ORANGE, BLUE)[side])
    return sheet

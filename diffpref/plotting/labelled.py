"""Rows of pictures under their captions: what a model draws for each prompt, a column a seed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import DataError
from diffpref.plotting.canvas import INK, LINE
from diffpref.plotting.pictures import (
    CAPTION_SIZE,
    GAP,
    MARGIN,
    MARK_SIZE,
    TILE,
    caption_font,
    drawable,
    resize,
    sized_font,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["labelled_grid"]

LINE_HEIGHT = CAPTION_SIZE + 5
MEAN_ADVANCE = 0.56 * CAPTION_SIZE  # of the font, pixels a character, measured


def labelled_grid(rows: Sequence[tuple[str, Sequence[Any]]], *, tile: int = TILE, heads: Sequence[str] = ()) -> Image:
    """Return one image with a caption and its pictures a row.

    Args:
        rows: caption and pictures, PIL images or (H, W, 3) uint8 arrays; all of one size.
        tile: side of a shown picture, pixels.
        heads: what stands over the columns; nothing by default.

    Raises:
        DataError: no rows, a row without pictures, or pictures of different sizes.
    """
    from PIL import Image, ImageDraw

    if not rows or not all(len(pictures) for _, pictures in rows):
        raise DataError("a grid needs at least one row, and each row at least one picture")
    shown = [[resize(picture, tile) for picture in pictures] for _, pictures in rows]
    if len(sizes := {picture.size for row in shown for picture in row}) != 1:
        raise DataError(f"a grid needs pictures of one size, got {sorted(sizes)}")
    width, height = sizes.pop()
    columns = max(map(len, shown))
    inner = columns * (width + GAP) - GAP
    characters = max(8, int(inner / MEAN_ADVANCE))
    captions = [
        textwrap.wrap(drawable(caption), characters, max_lines=3, placeholder=" ...") or [""] for caption, _ in rows
    ]
    heights = [LINE_HEIGHT * len(caption) + 4 + height + MARGIN for caption in captions]
    header = LINE_HEIGHT if heads else 0
    sheet = Image.new("RGB", (inner + 2 * MARGIN, sum(heights) + MARGIN + header), "white")
    draw, font, top = ImageDraw.Draw(sheet), caption_font(), MARGIN + header
    for number, head in enumerate(heads):
        draw.text((MARGIN + number * (width + GAP), MARGIN // 2), drawable(head), fill=INK, font=sized_font(MARK_SIZE))
    for caption, pictures, tall in zip(captions, shown, heights, strict=True):
        for number, text in enumerate(caption):
            draw.text((MARGIN, top + number * LINE_HEIGHT), text, fill=INK, font=font)
        y = top + LINE_HEIGHT * len(caption) + 4
        for number, picture in enumerate(pictures):
            x = MARGIN + number * (width + GAP)
            sheet.paste(picture, (x, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=LINE)
        top += tall
    return sheet

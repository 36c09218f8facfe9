"""Clips on paper and on a screen: frames side by side as strips, and sheets that move, as GIF or MP4."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffpref.core.errors import ConfigError, DataError
from diffpref.core.media import Clip
from diffpref.plotting.canvas import INK, LINE
from diffpref.plotting.labelled import LINE_HEIGHT, MEAN_ADVANCE
from diffpref.plotting.pictures import GAP, MARGIN, MARK_SIZE, as_uint8, caption_font, drawable, resize, sized_font

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Strip", "encode_gif", "encode_mp4", "frames_to_show", "strip", "strip_sheet"]

FRAME = 88  # side of a frame in a strip, pixels
IN_A_STRIP = 8
SEAM = 2
MOST_FRAMES = 32  # of what moves: a report holds dozens of clips
LETTER = 0.62 * MARK_SIZE  # width, measured
SHORTEST = 2  # hundredths of a second; browsers slow down what is shorter


class Strip(NamedTuple):
    """A clip of a sheet, what stands before it, and in which colour."""

    label: str
    clip: Clip
    colour: str = INK


def frames_to_show(clip: Clip, count: int = MOST_FRAMES) -> Clip:
    """Return at most so many frames of a clip, evenly spaced, the first and the last among them, in the same time.

    Raises:
        DataError: a clip without frames, or whose frames are no pictures.
    """
    frames = np.asarray(clip.frames)
    if frames.ndim != 4 or not len(frames):
        raise DataError(f"expected a clip of (F, H, W, 3) uint8 frames, got {frames.shape} {frames.dtype}")
    as_uint8(frames[0])
    if len(frames) <= count:
        return Clip(frames, clip.fps)
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return Clip(frames[places], None if clip.fps is None else clip.fps * count / len(frames))


def strip(clip: Clip, *, count: int = IN_A_STRIP, side: int = FRAME) -> Image:
    """Return frames of a clip side by side, time running to the right.

    Args:
        clip: (F, H, W, 3) uint8 frames.
        count: frames at most, evenly spaced, the first and the last among them.
        side: of a shown frame, pixels.
    """
    from PIL import Image

    frames = [resize(frame, side) for frame in frames_to_show(clip, count).frames]
    width, height = frames[0].size
    sheet = Image.new("RGB", (len(frames) * (width + SEAM) - SEAM, height), "white")
    for number, frame in enumerate(frames):
        sheet.paste(frame, (number * (width + SEAM), 0))
    return sheet


def strip_sheet(rows: Sequence[tuple[str, Sequence[Strip]]], *, count: int = IN_A_STRIP, side: int = FRAME) -> Image:
    """Return one image of strips: under each caption its clips, a line each, the label before it.

    Args:
        rows: captions and their clips, all of one size and number of frames.
        count: frames of a strip at most.
        side: of a shown frame, pixels.

    Raises:
        DataError: no rows, a row without clips, or clips of different sizes.
    """
    from PIL import Image, ImageDraw

    if not rows or not all(len(clips) for _, clips in rows):
        raise DataError("a sheet needs at least one row, and each row at least one clip")
    shown = [[strip(one.clip, count=count, side=side) for one in clips] for _, clips in rows]
    if len(sizes := {picture.size for row in shown for picture in row}) != 1:
        raise DataError(f"a sheet needs clips of one size and as many frames, got strips of {sorted(sizes)} pixels")
    width, height = sizes.pop()
    longest = max(len(one.label) for _, clips in rows for one in clips)
    indent = round(LETTER * longest) + GAP if longest else 0
    characters = max(8, int((indent + width) / MEAN_ADVANCE))
    captions = [textwrap.wrap(drawable(text), characters, max_lines=3, placeholder=" ...") or [""] for text, _ in rows]
    heights = [
        LINE_HEIGHT * len(caption) + 4 + len(row) * (height + GAP) + MARGIN - GAP
        for caption, row in zip(captions, shown, strict=True)
    ]
    sheet = Image.new("RGB", (indent + width + 2 * MARGIN, sum(heights) + MARGIN), "white")
    draw, font, small, top = ImageDraw.Draw(sheet), caption_font(), sized_font(MARK_SIZE), MARGIN
    for caption, (_, clips), row, tall in zip(captions, rows, shown, heights, strict=True):
        for number, text in enumerate(caption):
            draw.text((MARGIN, top + number * LINE_HEIGHT), text, fill=INK, font=font)
        y = top + LINE_HEIGHT * len(caption) + 4
        for one, picture in zip(clips, row, strict=True):
            draw.text((MARGIN, y + (height - MARK_SIZE) // 2), drawable(one.label), fill=one.colour, font=small)
            x = MARGIN + indent
            sheet.paste(picture, (x, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=LINE)
            y += height + GAP
        top += tall
    return sheet


def encode_gif(frames: Sequence[Any], fps: float) -> bytes:
    """Return a GIF that repeats for ever; all its frames share one palette of 256 colours, so that none flickers.

    Args:
        frames: PIL images or (H, W, 3) uint8 arrays, all of one size.
        fps: frames a second; more than 50 are shown at 50, which is what browsers do.
    """
    from PIL import Image

    pictures = [Image.fromarray(pixels) for pixels in _checked(frames)]
    width, height = pictures[0].size
    scale = max(1, max(width, height) // 256)
    small = [
        picture.resize((-(-width // scale), -(-height // scale)), Image.Resampling.NEAREST) for picture in pictures
    ]
    together = Image.new("RGB", (small[0].width, sum(picture.height for picture in small)))
    for number, picture in enumerate(small):
        together.paste(picture, (0, number * picture.height))
    palette = together.quantize(256)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    shown = np.diff(np.rint(np.arange(len(flat) + 1) * 100 / fps)).clip(min=SHORTEST)
    file = io.BytesIO()
    flat[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=flat[1:],
        duration=[10 * int(hundredths) for hundredths in shown],
        loop=0,
    )
    return file.getvalue()


def encode_mp4(frames: Sequence[Any], fps: float) -> bytes:
    """Return an H.264 MP4, made by PyAV: the extra ``video``. Odd sides get one more row or column, as at the edge.

    Args:
        frames: PIL images or (H, W, 3) uint8 arrays, all of one size.
        fps: frames a second.

    Raises:
        ConfigError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("MP4 files are made by PyAV; install the extra: pip install 'diffpref[video]'") from error
    pixels = np.stack(_checked(frames))
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, mode="w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        stream.options = {"crf": "16"}
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _checked(frames: Sequence[Any]) -> list[np.ndarray]:
    found = [as_uint8(frame) for frame in frames]
    if len(shapes := {frame.shape for frame in found}) != 1:
        raise DataError(f"what moves needs frames, all of one size, got {sorted(shapes) or 'none'}")
    return found

"""Images in and out: decoded with care, converted explicitly, framed for a model.

A file may be broken, huge or hostile. So its size is checked before a pixel is decoded, only well-known formats are
opened, and every error names the source. Colour profiles are ignored; of an animation the first frame is read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from diffpref.core.contracts import Media, PromptMedia
from diffpref.core.errors import DataError
from diffpref.data.kinds import KINDS, kind_of
from diffpref.data.views import CENTRE, View

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMATS",
    "Framed",
    "check_size",
    "clip_tensor",
    "decode_image",
    "encode_png",
    "file_bytes",
    "image_tensor",
    "picture_bytes",
    "read_picture",
    "readable",
    "to_rgb",
    "to_uint8",
]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 64e6
MAX_SIDE = 16_384
MAX_ASPECT = 16
MAX_BYTES = 64 * 2**20
# what Pillow's readers raise on broken files
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode_image(
    source: bytes | str | PathLike[str], *, max_pixels: float = MAX_PIXELS, name: str = "image"
) -> Image.Image:
    """Return an RGB image, the right way up, alpha laid over white.

    Args:
        source: encoded bytes, or the path of a file.
        max_pixels: width x height above which the image is refused before it is decoded.
        name: what to call ``bytes`` in an error; a path names itself.

    Raises:
        DataError: missing, too large, not an image, truncated, or of an unknown kind.
    """
    name = name if isinstance(source, bytes) else str(source)
    source = file_bytes(source, name)
    if (kind := kind_of(source)) != "picture":
        raise DataError(f"{name}: is {KINDS[kind]}; a picture is expected")
    with readable(name), Image.open(io.BytesIO(source), formats=FORMATS) as image:
        check_size(*image.size, name=name, max_pixels=max_pixels)
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), name=name)


def file_bytes(source: bytes | str | PathLike[str], name: str) -> bytes:
    """Return the content of a picture's file.

    Raises:
        DataError: missing, no file, or too large.
    """
    if not isinstance(source, bytes):
        path = Path(source)
        try:
            if path.exists() and not path.is_file():
                raise DataError(f"{name}: is no file")  # of a pipe or a device there may be no end
            if path.stat().st_size > MAX_BYTES:
                raise DataError(f"{name}: {path.stat().st_size:,} bytes are more than the {MAX_BYTES:,} allowed")
            source = path.read_bytes()
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    if len(source) > MAX_BYTES:
        raise DataError(f"{name}: {len(source):,} bytes are more than the {MAX_BYTES:,} allowed")
    return source


def check_size(width: int, height: int, *, name: str, max_pixels: float = MAX_PIXELS) -> None:
    """Refuse what would fill the memory.

    Raises:
        DataError: more pixels than allowed, or a side longer than 16,384.
    """
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise DataError(
            f"{name}: {width} x {height} pixels are more than the {max_pixels / 1e6:g} million allowed,"
            f" or a side is longer than {MAX_SIDE:,}"
        )


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what Pillow raises on broken files into a `DataError` that names the file."""
    try:
        yield
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"no image of a known format ({', '.join(FORMATS)})"
        raise DataError(f"{name}: cannot be decoded: {reason}") from error


def picture_bytes(media: PromptMedia) -> bytes:
    """Return the encoded bytes of a picture that belongs to a prompt.

    Raises:
        DataError: it is no picture, or its file cannot be read.
    """
    if media.kind != "image":
        raise DataError(f"a prompt's {media.kind} is given where a picture is expected")
    if media.bytes is not None:
        return media.bytes
    try:
        return Path(str(media.path)).read_bytes()
    except OSError as error:
        raise DataError(f"{media.path}: cannot be read ({error.strerror})") from error


def read_picture(media: PromptMedia, side: int | None = None) -> Image.Image:
    """Return a picture that belongs to a prompt, RGB.

    Args:
        media: its bytes or path.
        side: in pixels, of the square that it is scaled and padded to on grey, whole; None: as it is.

    Raises:
        DataError: as `decode_image`.
    """
    picture = decode_image(picture_bytes(media), name=media.path or "a prompt's picture")
    if side is None:
        return picture
    return ImageOps.pad(picture, (side, side), Image.Resampling.BICUBIC, color=(128, 128, 128))


def to_rgb(image: Image.Image, *, name: str = "image") -> Image.Image:
    """Return an 8-bit RGB image: 16-bit grey is scaled down, alpha is laid over white.

    Raises:
        DataError: the mode has no agreed range (32-bit integers, floats).
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: a picture of mode {image.mode!r} has no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def encode_png(pixels: np.ndarray) -> bytes:
    """Return the PNG file of (H, W, 3) uint8 pixels; equal pixels give equal bytes."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"a PNG is made of (H, W, 3) uint8 pixels, got {pixels.shape} {pixels.dtype}")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def to_uint8(media: Media) -> np.ndarray:
    """Return any kind of image as (H, W, 3) uint8.

    Args:
        media: a PIL image; a uint8 array (H, W, 3); a uint8 tensor (3, H, W) or (H, W, 3); a float tensor (3, H, W)
            in [0, 1], which becomes round(255 x).

    Raises:
        DataError: anything else. A range is never guessed: a tensor in [-1, 1] is refused.
    """
    if isinstance(media, Image.Image):
        return np.asarray(to_rgb(media))
    if isinstance(media, np.ndarray):
        if media.ndim == 3 and media.shape[2] == 3 and media.dtype == np.uint8:
            return media
        raise DataError(f"an image array must be (H, W, 3) uint8, got {media.shape} {media.dtype}")
    import torch

    if not isinstance(media, torch.Tensor):
        raise DataError(f"an image must be a PIL image, an array or a tensor, got {type(media).__name__}")
    shape = tuple(media.shape)
    first, last = len(shape) == 3 and shape[0] == 3, len(shape) == 3 and shape[2] == 3
    if media.dtype == torch.uint8:
        if first == last:
            raise DataError(f"a uint8 image tensor must be (3, H, W) or (H, W, 3), got {shape}")
        return (media.permute(1, 2, 0) if first else media).detach().cpu().contiguous().numpy()
    if not media.is_floating_point() or not first:
        raise DataError(f"an image tensor must be float (3, H, W) in [0, 1] or uint8, got {shape} {media.dtype}")
    values = media.detach().float().cpu()
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also refuses NaN
        raise DataError(f"a float image tensor must lie in [0, 1], got [{low:.3g}, {high:.3g}]; rescale it first")
    return (255 * values).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


@dataclass(frozen=True)
class Framed:
    """An image or a clip as a model sees it, and what SDXL's micro-conditioning asks about it.

    Args:
        pixels: (3, R, R) float32 in [-1, 1]; of a clip (F, 3, R, R).
        original_size: (height, width) before resizing.
        crop_offset: (top, left) of the crop within the resized image, mirrored where the view is.
    """

    pixels: Tensor
    original_size: tuple[int, int]
    crop_offset: tuple[int, int]


def image_tensor(image: Media, resolution: int, view: View = CENTRE) -> Framed:
    """Resize the short side to ``resolution`` (bilinear, antialiased), cut a square and mirror it where asked.

    A square image keeps every part of itself in any view; one of ``resolution`` x ``resolution`` keeps every pixel.

    Args:
        image: of any kind that `to_uint8` takes.
        resolution: side of the square, pixels.
        view: which square, and whether it is mirrored.

    Raises:
        DataError: not an image, or one more than 16 times as long as it is wide (resizing it would fill the memory).
    """
    import torch

    picture = Image.fromarray(to_uint8(image))
    width, height = picture.size
    short = min(width, height)
    if max(width, height) > MAX_ASPECT * short:
        raise DataError(f"an image of {width} x {height} pixels is more than {MAX_ASPECT} times as long as wide")
    size = (int(resolution * width / short), int(resolution * height / short))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - resolution) * view.right), round((size[1] - resolution) * view.down)
    picture = picture.crop((left, top, left + resolution, top + resolution))
    if view.mirrored:
        picture = ImageOps.mirror(picture)
        left = size[0] - resolution - left  # where the cut lies in the mirrored picture
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
    return Framed(pixels.contiguous(), (height, width), (top, left))


def clip_tensor(frames: np.ndarray, resolution: int, view: View = CENTRE) -> Framed:
    """Frame every picture of a clip alike, see `image_tensor`.

    Args:
        frames: (F, H, W, 3) uint8, those that are shown.
        resolution: side of the square, pixels.
        view: which square, and whether it is mirrored.

    Raises:
        DataError: as `image_tensor`.
    """
    import torch

    each = [image_tensor(frame, resolution, view) for frame in frames]
    return Framed(torch.stack([framed.pixels for framed in each]), each[0].original_size, each[0].crop_offset)

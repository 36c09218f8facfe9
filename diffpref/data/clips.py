"""Candidates as values: texts, pictures, and clips, which are the frames of an animated picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.core.media import Clip, Media
from diffpref.data.images import FORMATS, MAX_BYTES, decode_image, to_rgb

__all__ = ["candidate_bytes", "read_clip", "read_frames", "read_media", "spaced"]


def candidate_bytes(candidate: Candidate) -> bytes:
    """Return the encoded bytes of a picture or clip.

    Raises:
        DataError: there are none, or the file cannot be read.
    """
    if candidate.bytes is not None:
        return candidate.bytes
    if candidate.path is None:
        raise DataError("a candidate has neither bytes nor a path; expected a picture or a clip")
    try:
        if Path(candidate.path).stat().st_size > MAX_BYTES:
            raise DataError(f"{candidate.path}: more than the {MAX_BYTES:,} bytes allowed")
        return Path(candidate.path).read_bytes()
    except OSError as error:
        raise DataError(f"{candidate.path}: cannot be read ({error.strerror})") from error


def spaced(length: int, count: int) -> list[int]:
    """Return ``count`` positions in 0..length - 1, evenly spaced, the first and the last among them.

    >>> spaced(10, 4), spaced(2, 4)
    ([0, 3, 6, 9], [0, 0, 1, 1])
    """
    if count == 1:
        return [(length - 1) // 2]
    return [round(k * (length - 1) / (count - 1)) for k in range(count)]


def read_frames(candidate: Candidate, count: int | None) -> list[Image.Image]:
    """Return frames of a candidate, RGB.

    Args:
        candidate: a picture, or an animation (GIF, WebP, APNG).
        count: frames, evenly spaced; a picture is shown as often. None: the first frame alone.

    Raises:
        DataError: as `diffpref.data.decode_image`.
    """
    data, name = candidate_bytes(candidate), candidate.path or "a candidate"
    first = decode_image(data, name=name)
    if count is None:
        return [first]
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        wanted = spaced(getattr(image, "n_frames", 1), count)
        frames = {n: to_rgb(f.copy(), name=name) for n, f in enumerate(ImageSequence.Iterator(image)) if n in wanted}
    return [frames[number] for number in wanted]


def read_clip(candidate: Candidate, *, name: str = "") -> Clip:
    """Return every frame of a candidate, (F, H, W, 3) uint8, at its own speed; a picture has one frame and no speed.

    Args:
        candidate: a picture, or an animation (GIF, WebP, APNG).
        name: for messages; not given: its path.

    Raises:
        DataError: as `diffpref.data.decode_image`.
    """
    data, name = candidate_bytes(candidate), name or candidate.path or "a candidate"
    decode_image(data, name=name)
    frames, shown = [], []  # pixels, and milliseconds
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(to_rgb(frame.copy(), name=name)))
            shown.append(float(frame.info.get("duration") or 0))
    told = len(frames) > 1 and min(shown) > 0
    return Clip(np.stack(frames), 1000 * len(shown) / sum(shown) if told else None)


def read_media(candidate: Candidate, *, name: str) -> Media:
    """Return a candidate as rewards take it: a text, a picture, or a `Clip` of what has several frames.

    Args:
        candidate: of a record.
        name: for messages.

    Raises:
        DataError: it holds nothing, or what cannot be decoded.
    """
    if candidate.bytes is None and candidate.path is None:
        if candidate.text is None:
            raise DataError(f"{name}: holds no picture and no text to score")
        return candidate.text
    clip = read_clip(candidate, name=name)
    return Image.fromarray(clip.frames[0]) if len(clip.frames) == 1 else clip

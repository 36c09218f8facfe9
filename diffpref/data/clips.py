"""Candidates as values: texts, pictures, and clips, which are the frames of an animated picture."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.core.media import Clip, Media
from diffpref.data.images import FORMATS, MAX_BYTES, decode_image, to_rgb

__all__ = ["candidate_bytes", "encode_clip", "read_clip", "read_frames", "read_media", "spaced"]

LONGEST_SIDE = 2**14 - 1  # of WebP
LONGEST_SHOWN = 2**24 - 1  # milliseconds of a frame of WebP


def encode_clip(clip: Clip) -> bytes:
    """Return the animated WebP of a clip: lossless, frame by frame; equal clips give equal bytes.

    The file is put together here: encoders of animations leave out a frame that equals the one before, and a clip in
    which nothing moves would come back as a picture. Its durations are whole milliseconds, rounded so that the first k
    frames together are right to a millisecond: at 24 frames a second 16 frames are read back as 23.99.

    Args:
        clip: (F, H, W, 3) uint8 frames, with their speed.

    Raises:
        DataError: no such frames, sides of more than 16,383 pixels, no speed, or one that milliseconds cannot tell.

    Source: the container specification of WebP (RIFF chunks VP8X, ANIM, ANMF).
    """
    frames, fps = np.asarray(clip.frames), clip.fps
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise DataError(f"a clip is made of (F, H, W, 3) uint8 frames, got {frames.shape} {frames.dtype}")
    height, width = frames.shape[1:3]
    if max(height, width) > LONGEST_SIDE:
        raise DataError(f"a clip of {width} x {height} pixels: a side may have {LONGEST_SIDE:,} at most")
    if fps is None or not 1000 / LONGEST_SHOWN <= fps <= 1000:
        raise DataError(
            f"a clip needs its frames a second, at most 1000, to be kept; got {fps}; give Clip(frames, fps)"
        )
    ends = np.rint(np.arange(len(frames) + 1) * 1000 / fps).astype(int)
    size = _three_bytes(width - 1) + _three_bytes(height - 1)
    chunks = [_chunk(b"VP8X", struct.pack("<I", 2) + size), _chunk(b"ANIM", bytes(6))]  # animated; forever
    for frame, shown in zip(frames, np.diff(ends), strict=True):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, format="WEBP", lossless=True)
        head = bytes(6) + size + _three_bytes(int(shown)) + b"\x02"  # at the corner; laid over, not blended
        chunks.append(_chunk(b"ANMF", head + file.getvalue()[12:]))
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP" + b"".join(chunks)


def _three_bytes(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


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

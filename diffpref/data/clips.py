"""Candidates as values: texts, pictures, and clips, whatever their files are."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.core.media import Clip, Media
from diffpref.data.footage import Footage, open_animation, open_footage, pack_folder
from diffpref.data.images import decode_image, file_bytes
from diffpref.data.views import CENTRE, ClipCut, View

__all__ = [
    "Check",
    "candidate_bytes",
    "candidate_digest",
    "candidate_source",
    "check_clip",
    "check_media",
    "check_picture",
    "cut_clip",
    "encode_clip",
    "read_clip",
    "read_frames",
    "read_media",
    "spaced",
]

LONGEST_SIDE = 2**14 - 1  # of WebP
LONGEST_SHOWN = 2**24 - 1  # milliseconds of a frame of WebP
FASTEST = 500  # beyond it some frames of one clip take 1 ms and some 2, which readers take for two frames
Check = Callable[[Candidate, str], None]
"""Refuses a candidate with a `DataError`; the second argument is its name for the message."""


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
    if fps is None or not 1000 / LONGEST_SHOWN <= fps <= FASTEST:
        raise DataError(
            f"a clip needs its frames a second, at most {FASTEST}, to be kept; got {fps}; give Clip(frames, fps)"
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


def candidate_source(candidate: Candidate, name: str = "a candidate") -> bytes | str:
    """Return the content of a candidate, or the path of its file or of its folder of frames.

    Raises:
        DataError: there is neither.
    """
    if candidate.bytes is not None:
        return candidate.bytes
    if not candidate.path:
        raise DataError(f"{name}: has neither bytes nor a path; expected a picture or a clip")
    return candidate.path


def candidate_bytes(candidate: Candidate) -> bytes:
    """Return the encoded bytes of a picture or clip; of a folder of frames, the clip that they are packed into.

    Raises:
        DataError: there are none, or the file cannot be read.
    """
    source = candidate_source(candidate)
    if isinstance(source, bytes):
        return source
    try:
        return pack_folder(Path(source)) if Path(source).is_dir() else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error


def candidate_digest(candidate: Candidate) -> str:
    """Return the sha256 of a candidate's encoded bytes.

    Raises:
        DataError: there are none, or the file cannot be read.
    """
    if candidate.sha256:
        return candidate.sha256
    source = candidate_source(candidate)
    if isinstance(source, bytes) or Path(source).is_dir():
        return hashlib.sha256(candidate_bytes(candidate)).hexdigest()
    try:
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error


def spaced(length: int, count: int) -> list[int]:
    """Return ``count`` positions in 0..length - 1, evenly spaced, the first and the last among them.

    >>> spaced(10, 4), spaced(2, 4)
    ([0, 3, 6, 9], [0, 0, 1, 1])
    """
    if count == 1:
        return [(length - 1) // 2]
    return [round(k * (length - 1) / (count - 1)) for k in range(count)]


def _footage(candidate: Candidate, name: str) -> Footage:
    name = name or candidate.path or "a candidate"
    return open_footage(candidate_source(candidate, name), name=name)


def read_frames(candidate: Candidate, count: int | None) -> list[Image.Image]:
    """Return frames of a candidate, RGB.

    Args:
        candidate: a picture or a clip.
        count: frames, evenly spaced; a picture is shown as often. None: the picture, or an animation's first frame.

    Raises:
        DataError: as `diffpref.data.decode_image`.
    """
    name = candidate.path or "a candidate"
    if count is None:
        return [decode_image(candidate_source(candidate), name=name)]
    found = _footage(candidate, name)
    return [Image.fromarray(frame) for frame in found.read(spaced(found.length, count))]


def read_clip(candidate: Candidate, *, name: str = "") -> Clip:
    """Return every frame of a candidate, (F, H, W, 3) uint8, at its own speed; a picture has one frame and no speed.

    Args:
        candidate: a picture or a clip: an animation (GIF, WebP, APNG), a video file, an array, frames.
        name: for messages; not given: its path.

    Raises:
        DataError: as `diffpref.data.footage.open_footage`.
    """
    found = _footage(candidate, name)
    return Clip(found.read(range(found.length)), found.fps)


def cut_clip(candidate: Candidate, cut: ClipCut, view: View = CENTRE, *, name: str = "") -> tuple[Clip, list[int]]:
    """Return the frames of a clip that are shown, with the clip's own speed, and their positions in it.

    Raises:
        DataError: the clip cannot be read or cut so, see `ClipCut.frames`.
    """
    found = _footage(candidate, name)
    places = cut.frames(found.length, found.fps, view.start, name=name or candidate.path or "a candidate")
    return Clip(found.read(places), found.fps), places


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


# ---------------------------------------------------------------- what training can use


def check_media(candidate: Candidate, name: str) -> None:
    """Refuse what is neither a picture nor a clip that can be decoded."""
    _footage(candidate, name)


def check_picture(candidate: Candidate, name: str) -> None:
    """Refuse what is no picture, or an animation, of which a model of pictures would see the first frame alone."""
    length = open_animation(file_bytes(candidate_source(candidate, name), name), name).length
    if length > 1:
        raise DataError(f"{name}: is a clip of {length} frames; a picture is expected")


def check_clip(cut: ClipCut) -> Check:
    """Return what refuses clips that cannot be cut so: too short, or without the speed that is asked for."""

    def check(candidate: Candidate, name: str) -> None:
        found = _footage(candidate, name)
        cut.frames(found.length, found.fps, name=name)

    return check

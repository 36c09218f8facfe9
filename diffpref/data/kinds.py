"""What a file holds: a picture, a video, or an array of frames; by its first bytes where it is read, by its name where
files are looked for.
"""

from __future__ import annotations

__all__ = ["ARRAYS", "HEAD", "IMAGES", "KINDS", "MEDIA", "VIDEOS", "kind_of", "video_format"]

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp"})
VIDEOS = frozenset({"mp4", "m4v", "mov", "webm", "mkv", "avi", "mpg", "mpeg"})
ARRAYS = frozenset({"npy", "npz"})
MEDIA = IMAGES | VIDEOS | ARRAYS
"""Suffixes of what a candidate can be."""
KINDS = {"picture": "a picture", "video": "a video file", "array": "an array or a packed clip"}
HEAD = 12
"""Bytes that tell a kind."""
_BEGINNINGS = {b"\x1aE\xdf\xa3": "matroska", b"FLV\x01": "flv", b"OggS": "ogg", b"\x00\x00\x01\xba": "mpeg"}
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the first of an MP4 or a QuickTime movie


def video_format(head: bytes) -> str | None:
    """Return what FFmpeg calls the format of a video file, by its first `HEAD` bytes; None: it is none."""
    if head[4:8] in _BOXES:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return _BEGINNINGS.get(head[:4])


def kind_of(head: bytes) -> str:
    """Say what a file is by its first `HEAD` bytes: ``"video"``, ``"array"`` (NumPy's, or a zip), else ``"picture"``.

    >>> kind_of(b"\\x93NUMPY"), kind_of(b"\\x00\\x00\\x00 ftypisom"), kind_of(b"GIF89a")
    ('array', 'video', 'picture')
    """
    if head[:6] == b"\x93NUMPY" or head[:4] == b"PK\x03\x04":
        return "array"
    return "video" if video_format(head) else "picture"

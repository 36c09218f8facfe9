"""Video files, decoded by FFmpeg through PyAV: the extra ``video``.

A file is given to FFmpeg with the format that its first bytes tell, as a stream of bytes: no address in it is followed
and no playlist opened.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from diffpref.core.errors import ConfigError, DataError
from diffpref.data.footage import Footage
from diffpref.data.images import check_size
from diffpref.data.kinds import HEAD, video_format

__all__ = ["open_video"]


def open_video(source: bytes | str, *, name: str) -> Footage:
    """Open a video file; it is decoded once to count its frames, and again when frames are read.

    Args:
        source: the content of a file, or its path.
        name: for messages.

    Raises:
        DataError: the file is cut short, holds no video, or cannot be decoded.
        ConfigError: the extra ``video`` is not installed; no file of the source can be read then.
    """
    with _opened(source, name) as (file, form):
        if form == "mov" and _cut_short(file):
            raise DataError(f"{name}: cannot be decoded: the file is cut short")
        file.seek(0)
        with _decoder(file, form, name) as (container, stream):
            check_size(stream.width, stream.height, name=name)
            length = sum(1 for _ in container.decode(stream))
            rate = stream.average_rate or stream.guessed_rate
    return Footage(length, float(rate) if rate else None, lambda wanted: _read(source, wanted, name))


def _read(source: bytes | str, wanted: Sequence[int], name: str) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    last, needed = max(wanted), set(wanted)
    with _opened(source, name) as (file, form), _decoder(file, form, name) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in needed:
                quarters = round(frame.rotation / 90)  # against the clock, as the camera was held
                found[number] = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
            if number >= last:
                break
    if missing := [number for number in wanted if number not in found]:
        raise DataError(f"{name}: frame {missing[0]} cannot be decoded")
    return np.stack([found[number] for number in wanted])


@contextmanager
def _opened(source: bytes | str, name: str) -> Iterator[tuple[Any, str]]:
    """Yield a file and the format of its content."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            form = video_format(file.read(HEAD))
            file.seek(0)
            yield file, form or "mov"
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error


@contextmanager
def _decoder(file: Any, form: str, name: str) -> Iterator[tuple[Any, Any]]:
    """Yield a container and its first video stream.

    Raises:
        DataError: what FFmpeg says.
        ConfigError: there is no FFmpeg.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"{name}: to read a video file takes PyAV; pip install 'diffpref[video]'") from error
    try:
        with av.open(file, format=form, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise DataError(f"{name}: holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, ValueError, IndexError, EOFError) as error:
        raise DataError(f"{name}: cannot be decoded: {str(error).splitlines()[0][:200]}") from error


def _cut_short(file: Any) -> bool:
    """Whether the boxes of an MP4 file reach beyond its end: FFmpeg would silently give the frames that are left."""
    end, place = file.seek(0, 2), 0
    while place + 8 <= end:
        file.seek(place)
        size = struct.unpack(">I", file.read(4))[0]
        if size == 1:
            file.seek(place + 8)
            size = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))[0]
        if size == 0:  # the last box, to the end of the file
            return False
        if size < 8:
            return True
        place += size
    return bool(place > end)

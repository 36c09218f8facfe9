"""Clips opened by what they are: animated pictures, video files, arrays, and frames that are pictures.

Frames that lie in a folder, or in a list, are packed into a zip without compression, which is then the clip's content.
The frames of a clip are decoded when they are asked for, because a video may hold more of them than the memory.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from diffpref.core.errors import DataError
from diffpref.data.images import FORMATS, MAX_BYTES, check_size, decode_image, file_bytes, readable, to_rgb
from diffpref.data.kinds import HEAD, IMAGES, kind_of

__all__ = ["MAX_VIDEO_BYTES", "Footage", "open_animation", "open_footage", "pack_folder", "pack_frames", "with_speed"]

MAX_VIDEO_BYTES = 2**30
MAX_FRAMES = 36_000  # ten minutes at 60 a second
MAX_TOGETHER = 2**29  # pixels of an animation, which is decoded as a whole
ANIMATED = ("GIF", "PNG", "WEBP")  # pages of a TIFF and the previews in a photo are no frames
SPEED = "fps.npy"
"""In a packed clip: its frames a second, a float64."""


@dataclass(frozen=True)
class Footage:
    """A clip whose frames are decoded when they are asked for.

    Args:
        length: its frames.
        fps: frames a second, None where the clip does not tell.
        read: positions, none before the one in front of it -> (n, H, W, 3) uint8.
    """

    length: int
    fps: float | None
    read: Callable[[Sequence[int]], np.ndarray]


def open_footage(source: bytes | str, *, name: str = "") -> Footage:
    """Open a clip.

    Args:
        source: the content of a file, or the path of a file or of a folder of frames.
        name: for messages; not given: the path.

    Raises:
        DataError: it cannot be read, is cut short, too large, or of an unknown kind.
        ConfigError: a video file, and the extra ``video`` is not installed.
    """
    name = name or (source if isinstance(source, str) else "a clip")
    if isinstance(source, str) and Path(source).is_dir():
        source = pack_folder(Path(source))
    head, size = _head(source, name)
    kind = kind_of(head)
    most = MAX_BYTES if kind == "picture" else MAX_VIDEO_BYTES
    if size > most:
        raise DataError(f"{name}: {size:,} bytes are more than the {most:,} allowed")
    if kind == "video":
        from diffpref.data.videos import open_video

        found = open_video(source, name=name)
    elif kind == "array":
        found = _array(source, name)
    else:
        found = open_animation(file_bytes(source, name), name)
    if not 1 <= found.length <= MAX_FRAMES:
        raise DataError(f"{name}: {found.length:,} frames; a clip has 1 to {MAX_FRAMES:,}")
    return found


def _head(source: bytes | str, name: str) -> tuple[bytes, int]:
    """Return the first bytes and the number of all."""
    if isinstance(source, bytes):
        return source[:HEAD], len(source)
    path = Path(source)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is no file")  # of a pipe or a device there may be no end
        with open(path, "rb") as file:
            return file.read(HEAD), path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


# ---------------------------------------------------------------- animated pictures


def open_animation(content: bytes, name: str) -> Footage:
    """Open a picture, animated or not, by its encoded bytes.

    Raises:
        DataError: it is none, or cannot be decoded.
    """
    first = decode_image(content, name=name)
    pictures, shown = [first], [0.0]  # milliseconds
    with readable(name), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        if count * image.width * image.height > MAX_TOGETHER:
            raise DataError(f"{name}: {count:,} frames of {image.width} x {image.height} pixels are too much at once")
        if count > 1:
            pictures, shown = [], []
            for frame in ImageSequence.Iterator(image):
                pictures.append(to_rgb(frame.copy(), name=name))
                shown.append(float(frame.info.get("duration") or 0))
    times = _times(shown)
    places = [number for number, several in enumerate(times) for _ in range(several)][: MAX_FRAMES + 1]
    fps = 1000 * len(places) / sum(shown) if len(places) > 1 and min(shown) > 0 else None
    return Footage(len(places), fps, lambda wanted: _stack([pictures[places[n]] for n in wanted]))


def _times(shown: Sequence[float]) -> list[int]:
    """Return how many frames each stored one is: of equal ones in a row encoders keep the first, and show it longer."""
    shortest = min(shown)
    if shortest <= 0:
        return [1] * len(shown)
    times = [max(1, round(one / shortest)) for one in shown]
    # whole milliseconds: 24 frames a second are 41 and 42
    even = all(abs(one / shortest - several) <= 0.05 * several for one, several in zip(shown, times, strict=True))
    return times if even else [1] * len(shown)


# ---------------------------------------------------------------- arrays and packed frames


def _array(source: bytes | str, name: str) -> Footage:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    head, _ = _head(source, name)
    try:
        if head[:2] == b"PK":
            with zipfile.ZipFile(file) as archive:
                return _packed(archive, name)
        mapped = None if isinstance(source, bytes) else "r"
        return _from_array(np.load(file, mmap_mode=mapped, allow_pickle=False), None, name)  # type: ignore[arg-type]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{name}: cannot be read as an array: {str(error).splitlines()[0][:200]}") from error


def _packed(archive: zipfile.ZipFile, name: str) -> Footage:
    """Open an .npz file of frames, or pictures in a zip."""
    members = {member.filename: member for member in archive.infolist()}
    if sum(member.file_size for member in members.values()) > MAX_VIDEO_BYTES:
        raise DataError(f"{name}: unpacks to more than the {MAX_VIDEO_BYTES:,} bytes allowed")
    fps = _speed(_load(archive, SPEED)) if SPEED in members else None
    content = sorted((one for one in members if one != SPEED), key=_natural)
    arrays = [one for one in content if one.endswith(".npy")]
    if len(arrays) == 1 == len(content) or "frames.npy" in arrays:
        return _from_array(_load(archive, "frames.npy" if "frames.npy" in arrays else arrays[0]), fps, name)
    if not content or any(Path(one).suffix[1:].lower() not in IMAGES for one in content):
        told = ", ".join(content[:5]) or "nothing"
        raise DataError(f"{name}: holds {told}; one array of frames, or pictures, are expected")
    pictures = [decode_image(archive.read(one), name=f"{name}, {one}") for one in content]
    if len(sizes := {picture.size for picture in pictures}) > 1:
        told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise DataError(f"{name}: its frames differ in size: {told}")
    return Footage(len(pictures), fps, lambda wanted: _stack([pictures[number] for number in wanted]))


def _load(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    return np.load(io.BytesIO(archive.read(member)), allow_pickle=False)


def _speed(value: np.ndarray) -> float:
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.reshape(-1)[0]) < 1e6:
        raise ValueError(f"fps must be one number above 0, got {value.dtype} of shape {value.shape}")
    return float(value.reshape(-1)[0])


def _from_array(frames: np.ndarray, fps: float | None, name: str) -> Footage:
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        told = f"{frames.shape} {frames.dtype}" if isinstance(frames, np.ndarray) else "several arrays"
        raise DataError(f"{name}: a clip is an array (F, H, W, 3) of uint8, got {told}")
    check_size(frames.shape[2], frames.shape[1], name=name)
    return Footage(len(frames), fps, lambda wanted: np.asarray(frames[list(wanted)]))


def _stack(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures])


# ---------------------------------------------------------------- packing


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort ``frame_10`` after ``frame_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def pack_frames(frames: Sequence[tuple[str, bytes]], fps: float | None = None) -> bytes:
    """Return a clip made of pictures, a zip without compression; equal frames give equal bytes.

    Args:
        frames: suffix and content of each picture.
        fps: frames a second, where they are known.
    """
    members = {f"{number:06d}.{suffix}": content for number, (suffix, content) in enumerate(frames)}
    return _zip(members if fps is None else {**members, SPEED: _speed_bytes(fps)})


def pack_folder(folder: Path, fps: float | None = None) -> bytes:
    """Return the clip of a folder of pictures, in the order of their names, 9 before 10.

    Raises:
        DataError: it holds none, too much of them, or cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if path.suffix[1:].lower() in IMAGES and path.is_file()]
        if not files:
            raise DataError(f"{folder}: a folder without pictures; the frames of a clip are expected")
        if (size := sum(path.stat().st_size for path in files)) > MAX_VIDEO_BYTES:
            raise DataError(f"{folder}: {size:,} bytes of frames are more than the {MAX_VIDEO_BYTES:,} allowed")
        files.sort(key=lambda path: _natural(path.name))
        return pack_frames([(path.suffix[1:].lower(), path.read_bytes()) for path in files], fps)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def with_speed(source: bytes | str, fps: float) -> bytes | None:
    """Return a clip with its frames a second, where it is of a kind that cannot tell them itself; else None.

    Args:
        source: the content of a file, or the path of a file or of a folder of frames.
        fps: frames a second.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(source, str) and Path(source).is_dir():
        return pack_folder(Path(source), fps)
    head, size = _head(source, source if isinstance(source, str) else "a clip")
    if kind_of(head) != "array" or size > MAX_VIDEO_BYTES:
        return None
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if head[:2] != b"PK":
        return _zip({"frames.npy": content, SPEED: _speed_bytes(fps)})
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if SPEED in names or sum(member.file_size for member in archive.infolist()) > MAX_VIDEO_BYTES:
                return None
            return _zip({**{name: archive.read(name) for name in names}, SPEED: _speed_bytes(fps)})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return None  # whoever opens it says what is wrong


def _speed_bytes(fps: float) -> bytes:
    file = io.BytesIO()
    np.save(file, np.float64(fps))
    return file.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980, whenever it is made
    return file.getvalue()

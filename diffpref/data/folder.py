"""A folder of pictures as rows: ``cat.png`` with its caption in ``cat.txt`` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError
from diffpref.data.kinds import MEDIA

__all__ = ["PictureFolder"]

MAX_CAPTION = 2**20


class PictureFolder:
    """The pictures below a folder, in the order of their names, each with the text file of the same name.

    Args:
        folder: whose hidden files and folders are passed over.
    """

    columns = ("__key__", "image", "prompt")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pictures = sorted(_pictures(folder))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Any:
        name = self._pictures[index]
        caption = (self.folder / name).with_suffix(".txt")
        try:
            if caption.exists() and not caption.is_file():
                raise DataError(f"{caption}: is no file")
            with open(caption, "rb") as file:
                text = file.read(MAX_CAPTION + 1)
            if len(text) > MAX_CAPTION:
                raise DataError(f"{caption}: longer than the {MAX_CAPTION:,} bytes allowed")
            prompt = text.decode("utf-8-sig").rstrip("\r\n")
        except FileNotFoundError as error:
            raise DataError(f"{self.folder / name}: no caption; expected {caption.name} beside it") from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{caption}: cannot be read as text: {error}") from error
        return {"__key__": Path(name).with_suffix("").as_posix(), "image": name, "prompt": prompt}

    def where(self, index: int) -> str:
        """Say where a row stands."""
        return str(self.folder / self._pictures[index])

    @property
    def counts(self) -> dict[Path, int]:
        """The pictures, a row each, and their captions, which hold none of their own."""
        pictures = [self.folder / name for name in self._pictures]
        captions = [caption for picture in pictures if (caption := picture.with_suffix(".txt")).is_file()]
        return {**dict.fromkeys(pictures, 1), **dict.fromkeys(captions, 0)}


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _pictures(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix[1:].lower() in MEDIA:
                yield Path(place, name).relative_to(folder).as_posix()

"""JSONL files as rows, a line at a time: a file of any size takes the memory of its longest line."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError

__all__ = ["JsonLines"]

MAX_LINE = 16 * 2**20


class JsonLines:
    """The objects of JSONL files; empty lines are passed over.

    Args:
        files: read in their order.

    Raises:
        DataError: a line is too long, or the first one is not JSON. Later ones are found when they are read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._places, self._lines, self._starts = array("q"), array("q"), []  # type: array[int], array[int], list[int]
        for file in self.files:
            self._starts.append(len(self._places))
            try:
                self._scan(file)
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        self.columns: list[str] = []
        if len(self):
            first = self[0]
            self.columns = list(first) if isinstance(first, dict) else []

    def _scan(self, path: Path) -> None:
        number, place = 0, 0
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}, line {number}: longer than the {MAX_LINE:,} bytes allowed")
                if line.strip():
                    self._places.append(place)
                    self._lines.append(number)
                place += len(line)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        where = self.where(index)
        try:
            with open(self._file(index), "rb") as file:
                file.seek(self._places[index])
                line = file.readline(MAX_LINE + 1)
            return json.loads(line.decode("utf-8-sig"))
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: cannot be read as text: {error}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from error

    def _file(self, index: int) -> Path:
        return self.files[bisect_right(self._starts, index) - 1]

    def where(self, index: int) -> str:
        """Say where a row stands."""
        return f"{self._file(index)}, line {self._lines[index]}"

    @property
    def counts(self) -> dict[Path, int]:
        """How many rows each file holds."""
        stops = [*self._starts[1:], len(self)]
        return {file: stop - start for file, start, stop in zip(self.files, self._starts, stops, strict=True)}

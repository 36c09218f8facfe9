"""A labelled grid shows each row's pictures in order under its caption."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from diffpref.core.errors import DataError
from diffpref.plotting import labelled_grid


def flat(red: int, size: int = 64) -> np.ndarray:
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = red
    return image


def place(grid: np.ndarray, red: int) -> tuple[int, int]:
    """Return top and left of the pixels of one colour."""
    rows, columns = np.nonzero((grid == (red, 0, 0)).all(-1))
    return int(rows.min()), int(columns.min())


def test_rows_follow_each_other_and_pictures_stand_side_by_side() -> None:
    grid = np.asarray(labelled_grid([("one", [flat(200), flat(150)]), ("two", [flat(100), Image.fromarray(flat(50))])]))
    places = {red: place(grid, red) for red in (200, 150, 100, 50)}
    assert places[200][0] == places[150][0] < places[100][0] == places[50][0]
    assert places[200][1] == places[100][1] < places[150][1] == places[50][1]
    assert (grid == (200, 0, 0)).all(-1).sum() == 192 * 192  # 64 pixels enlarged three times


def test_a_caption_stands_above_its_row_and_long_ones_wrap() -> None:
    short, long = (labelled_grid([(text, [flat(1)])]) for text in ("word", "word " * 12))
    assert long.size[0] == short.size[0] and long.size[1] > short.size[1]
    empty = np.asarray(labelled_grid([("", [flat(1)])]))
    above = np.asarray(short)[: place(np.asarray(short), 1)[0] - 1]
    assert (above < 128).any() and not (empty[: place(empty, 1)[0] - 1] < 128).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([("a", [])], "at least one picture"),
        ([("a", [flat(1), np.zeros((32, 64, 3), np.uint8)])], "pictures of one size"),
    ],
)
def test_mistakes_are_told(rows: list[tuple[str, list[np.ndarray]]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labelled_grid(rows)

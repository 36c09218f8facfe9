"""The oracle: reads a picture of the shapes world and tells which facts of a caption hold.

It finds the connected foreground regions, names each one's colour (nearest palette colour to its median) and shape (the
best overlap with a circle, square or triangle of the same area and centroid), and compares with the caption. It is
plain geometry: no method is ever trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from diffpref.shapes.grammar import COLOURS, SHAPES, Caption
from diffpref.shapes.render import BACKGROUND, coverage

__all__ = ["FACTS", "Seen", "facts", "look", "num_facts_right", "relation"]

FACTS = ("two_objects", "first_colour", "first_shape", "second_colour", "second_shape", "relation")
FOREGROUND_DISTANCE = 60.0  # RGB distance from the background, 0..441
COLOUR_DISTANCE = 75.0
MIN_AREA = 40  # pixels; the smallest object that the renderer paints has 201
MIN_OVERLAP = 0.82  # a true render overlaps its own template by more than 0.93; a square and a circle by 0.83


@dataclass(frozen=True)
class Seen:
    """A region of a picture. ``colour`` or ``shape`` is None where nothing known fits."""

    colour: str | None
    shape: str | None
    x: float
    y: float
    area: int


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    """Return one mask for each 4-connected region, by spreading the largest index until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        spread = np.where(mask, np.maximum.reduce([labels, *neighbours]), 0)
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels) if label]
        labels = spread


def _name_colour(pixels: np.ndarray) -> str | None:
    distances = {n: float(np.linalg.norm(np.median(pixels, axis=0) - np.array(c))) for n, c in COLOURS.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= COLOUR_DISTANCE else None


def _name_shape(region: np.ndarray, x: float, y: float, area: int) -> str | None:
    radius = float(np.sqrt(area / np.pi))
    overlaps = {}
    for shape in SHAPES:
        template = coverage(shape, x, y, radius, size=region.shape[0]) >= 0.5
        overlaps[shape] = float((region & template).sum() / (region | template).sum())
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] >= MIN_OVERLAP else None


def look(image: np.ndarray) -> list[Seen]:
    """Return the objects in a picture, largest first.

    Args:
        image: (H, H, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    pixels = image.astype(np.float64)
    mask = np.linalg.norm(pixels - np.array(BACKGROUND), axis=2) > FOREGROUND_DISTANCE
    seen = []
    for region in _regions(mask):
        rows, columns = np.nonzero(region)
        if (area := len(rows)) < MIN_AREA:
            continue
        x, y = float(columns.mean() + 0.5), float(rows.mean() + 0.5)
        seen.append(Seen(_name_colour(pixels[region]), _name_shape(region, x, y, area), x, y, area))
    return sorted(seen, key=lambda s: -s.area)


def relation(first: Seen, second: Seen) -> str:
    """Return the relation of the first object to the second, one of `RELATIONS`."""
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dx) >= abs(dy):
        return "left of" if dx > 0 else "right of"
    return "above" if dy > 0 else "below"


def facts(image: np.ndarray, caption: Caption) -> dict[str, bool]:
    """Tell for each of `FACTS` whether it holds.

    The two largest objects of the picture are matched with the caption's two in whichever way makes more facts true.

    Args:
        image: (H, H, 3) uint8.
    """
    objects = look(image)
    nobody = Seen(None, None, 0.0, 0.0, 0)
    candidates = [*objects, nobody, nobody][:2]

    def match(first: Seen, second: Seen) -> dict[str, bool]:
        both = first is not nobody and second is not nobody
        values = (
            len(objects) == 2,
            first.colour == caption.first.colour,
            first.shape == caption.first.shape,
            second.colour == caption.second.colour,
            second.shape == caption.second.shape,
            both and relation(first, second) == caption.relation,
        )
        return dict(zip(FACTS, values, strict=True))

    return max((match(a, b) for a, b in permutations(candidates)), key=lambda found: sum(found.values()))


def num_facts_right(image: np.ndarray, caption: Caption) -> int:
    """Return how many of the six facts hold."""
    return sum(facts(image, caption).values())

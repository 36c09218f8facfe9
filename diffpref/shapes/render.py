"""Pictures of captions: 64 x 64 pixels, flat colours, anti-aliased edges.

Every shape has the same area for the same size, so that neither size nor area gives a shape away. Where the objects lie
and how large they are is free within what the caption says; the two never touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpref.shapes.grammar import COLOURS, Caption, Thing

__all__ = ["BACKGROUND", "SIZE", "Placed", "coverage", "place", "render", "render_scene"]

SIZE = 64
BACKGROUND = (240, 240, 240)
RADII = (8.0, 10.0)
NEAR, FAR, ACROSS = (14.5, 17.0), (47.0, 49.5), (22.0, 42.0)
TRIANGLE_INRADIUS = float(np.sqrt(np.pi / (3 * np.sqrt(3))))


@dataclass(frozen=True)
class Placed:
    """An object in a picture: its centroid (x, y) and the radius of the circle of equal area, in pixels."""

    thing: Thing
    x: float
    y: float
    radius: float


def coverage(shape: str, x: float, y: float, radius: float, size: int = SIZE) -> np.ndarray:
    """Return (size, size) float64 in [0, 1]: how much of each pixel a shape of area pi * radius^2 at (x, y) covers."""
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    dx, dy = columns - x, rows - y
    if shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - radius * np.sqrt(np.pi) / 2
    elif shape == "triangle":  # equilateral, one corner up
        slanted = np.abs(dx) * np.sqrt(3) / 2 - dy / 2
        distance = np.maximum(slanted, dy) - radius * TRIANGLE_INRADIUS
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.clip(0.5 - distance, 0.0, 1.0)


def place(caption: Caption, random: np.random.Generator) -> tuple[Placed, Placed]:
    """Draw where the two objects of a caption lie."""
    near, far = random.uniform(*NEAR), random.uniform(*FAR)
    across = random.uniform(*ACROSS, size=2)
    if caption.relation in ("left of", "right of"):
        positions = [(near, across[0]), (far, across[1])]
    else:  # a triangle reaches further up from its centroid than down
        positions = [(across[0], near + 1.5), (across[1], far + 1.5)]
    if caption.relation in ("right of", "below"):
        positions.reverse()
    radii = random.uniform(*RADII, size=2)
    things = (caption.first, caption.second)
    first, second = (Placed(t, *p, r) for t, p, r in zip(things, positions, radii, strict=True))
    return first, second


def render_scene(scene: tuple[Placed, ...]) -> np.ndarray:
    """Return (64, 64, 3) uint8: the objects painted one after the other on the background."""
    picture = np.broadcast_to(np.array(BACKGROUND, dtype=np.float64), (SIZE, SIZE, 3))
    for placed in scene:
        alpha = coverage(placed.thing.shape, placed.x, placed.y, placed.radius)[..., None]
        picture = (1 - alpha) * picture + alpha * np.array(COLOURS[placed.thing.colour], dtype=np.float64)
    return np.round(picture).astype(np.uint8)


def render(caption: Caption, random: np.random.Generator) -> np.ndarray:
    """Return (64, 64, 3) uint8: one picture for which every fact of the caption holds."""
    return render_scene(place(caption, random))

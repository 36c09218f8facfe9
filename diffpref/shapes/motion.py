"""The moving half of the shapes world: captions of one moving object, and clips of them.

``"a red circle moving left slowly"``: 18 objects in 4 directions at 2 speeds give 144 captions, of which 44 (`SPLITS`)
were never shown to the bundled models. A clip has 8 frames of 32 x 32 pixels at 8 frames a second; where the object
starts and how large it is are free within what the caption says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.shapes.grammar import COLOURS, SHAPES, Thing
from diffpref.shapes.render import BACKGROUND, coverage

__all__ = [
    "DIRECTIONS",
    "FPS",
    "NUM_FRAMES",
    "SIDE",
    "SPEEDS",
    "SPLITS",
    "MovingCaption",
    "moving_captions",
    "render_clip",
    "render_path",
]

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": (4.5, 6.0), "quickly": (12.0, 14.0)}
"""Pixels from the first frame to the last."""
SIDE, NUM_FRAMES, FPS = 32, 8, 8
RADII = (5.0, 6.0)
MARGIN = 8.5  # nearest that a centroid comes to an edge: a triangle reaches 1.56 radii up
NUM_UNSEEN = 44
SPLITS = ("seen", "unseen")


@dataclass(frozen=True)
class MovingCaption:
    """A thing, where it goes and how fast; ``str()`` gives the sentence that the models read.

    >>> str(MovingCaption(Thing("red", "circle"), "left", "slowly"))
    'a red circle moving left slowly'
    """

    thing: Thing
    direction: str
    speed: str

    def __str__(self) -> str:
        return f"{self.thing} moving {self.direction} {self.speed}"

    @classmethod
    def parse(cls, text: str) -> MovingCaption:
        """Read a sentence back.

        Raises:
            DataError: the text is not a sentence of this grammar.
        """
        words = "|".join
        pattern = rf"an? ({words(COLOURS)}) ({words(SHAPES)}) moving ({words(DIRECTIONS)}) ({words(SPEEDS)})"
        match = re.fullmatch(pattern, text.strip())
        if not match:
            raise DataError(
                f"not a caption of the moving shapes: {text!r}; expected one like 'a red circle moving left slowly'"
            )
        return cls(Thing(match[1], match[2]), match[3], match[4])


@cache
def moving_captions(split: str) -> tuple[MovingCaption, ...]:
    """Return the captions of a split (`SPLITS`), in a fixed shuffled order."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of the moving shapes; known: {', '.join(SPLITS)}")
    every = [
        MovingCaption(Thing(colour, shape), direction, speed)
        for colour, shape, direction, speed in product(COLOURS, SHAPES, DIRECTIONS, SPEEDS)
    ]
    order = Random(0).numpy("moving splits").permutation(len(every))
    shuffled = [every[i] for i in order]
    return tuple(shuffled[:NUM_UNSEEN] if split == "unseen" else shuffled[NUM_UNSEEN:])


def render_path(thing: Thing, places: np.ndarray, radius: float) -> np.ndarray:
    """Return (F, 32, 32, 3) uint8: a thing at each of (F, 2) centroids (x, y), in pixels."""
    frames = []
    for x, y in places:
        alpha = coverage(thing.shape, x, y, radius, size=SIDE)[..., None]
        picture = (1 - alpha) * np.array(BACKGROUND, np.float64) + alpha * np.array(COLOURS[thing.colour], np.float64)
        frames.append(np.round(picture).astype(np.uint8))
    return np.stack(frames)


def render_clip(caption: MovingCaption, random: np.random.Generator) -> np.ndarray:
    """Return (8, 32, 32, 3) uint8: one clip for which every fact of the caption holds."""
    direction = np.array(DIRECTIONS[caption.direction], dtype=np.float64)
    path = random.uniform(*SPEEDS[caption.speed]) * direction
    low, high = np.minimum(path, 0.0), np.maximum(path, 0.0)
    start = random.uniform(MARGIN - low, SIDE - MARGIN - high)
    along = np.linspace(0.0, 1.0, NUM_FRAMES)[:, None]
    return render_path(caption.thing, start + along * path, random.uniform(*RADII))

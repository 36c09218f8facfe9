"""The oracle of the shapes world as a detector, so that GenEval's rules can be run on the bundled models."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from PIL import Image

from diffpref.core.errors import DataError
from diffpref.rewards._objects import Found
from diffpref.shapes.grammar import COLOURS, SHAPES
from diffpref.shapes.oracle import look
from diffpref.shapes.render import SIZE

__all__ = ["ShapesColours", "ShapesDetector"]


class ShapesDetector:
    """Finds circles, squares and triangles with their colours; it is sure of all of them. Boxes are squares of the
    objects' area around their centroids."""

    version = "shapes-oracle-1"
    licence = "Apache-2.0"
    classes: frozenset[str] | None = frozenset(SHAPES)

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        """Return the objects of these classes.

        Raises:
            DataError: a picture of another size.
        """
        if picture.size != (SIZE, SIZE):
            raise DataError(f"the shapes detector reads pictures of {SIZE} x {SIZE} pixels, got {picture.size}")
        found = []
        for seen in look(np.asarray(picture)):
            if seen.shape in classes and threshold < 1:
                half = sqrt(seen.area) / 2
                box = (seen.x - half, seen.y - half, seen.x + half, seen.y + half)
                found.append(Found(str(seen.shape), box, 1.0, colour=seen.colour))
        return found


class ShapesColours:
    """Repeats the colours that the detector told."""

    version = "told"
    licence = "Apache-2.0"
    palette = tuple(COLOURS)

    def __call__(self, picture: Image.Image, objects: Sequence[Found]) -> list[str | None]:
        """Return each object's own colour."""
        return [one.colour for one in objects]

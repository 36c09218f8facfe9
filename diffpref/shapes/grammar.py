"""The captions of the shapes world: two objects and how they lie, ``"a red circle left of a blue square"``.

18 objects (6 colours x 3 shapes) in ordered pairs of different objects under 4 relations give 1,224 captions. They are
divided once and for all into three splits:

- ``seen``: the captions that the bundled models were trained on;
- ``unseen``: captions whose objects were seen in training, never together in this way;
- ``held_out``: captions with an object of `HELD_OUT`, whose colour and shape training never showed together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random

__all__ = ["COLOURS", "HELD_OUT", "RELATIONS", "SHAPES", "SPLITS", "Caption", "Thing", "all_captions", "captions"]

COLOURS = {
    "red": (225, 45, 40),
    "green": (40, 165, 65),
    "blue": (35, 85, 225),
    "yellow": (245, 200, 25),
    "purple": (160, 50, 190),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
SPLITS = ("seen", "unseen", "held_out")
NUM_UNSEEN = 500


@dataclass(frozen=True)
class Thing:
    """One object: a colour of `COLOURS` and a shape of `SHAPES`."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"


HELD_OUT = (Thing("purple", "triangle"), Thing("yellow", "square"))


@dataclass(frozen=True)
class Caption:
    """``first`` lies in ``relation`` to ``second``; ``str()`` gives the sentence that the models read.

    >>> str(Caption(Thing("red", "circle"), "left of", Thing("blue", "square")))
    'a red circle left of a blue square'
    """

    first: Thing
    relation: str
    second: Thing

    def __str__(self) -> str:
        return f"{self.first} {self.relation} {self.second}"

    @classmethod
    def parse(cls, text: str) -> Caption:
        """Read a sentence back.

        Raises:
            DataError: the text is not a sentence of this grammar.
        """
        colours, shapes = "|".join(COLOURS), "|".join(SHAPES)
        thing = rf"an? ({colours}) ({shapes})"
        match = re.fullmatch(rf"{thing} ({'|'.join(RELATIONS)}) {thing}", text.strip())
        if not match:
            raise DataError(
                f"not a caption of the shapes world: {text!r}; expected one like 'a red circle left of a blue square'"
            )
        return cls(Thing(match[1], match[2]), match[3], Thing(match[4], match[5]))


@cache
def all_captions() -> tuple[Caption, ...]:
    """Return the 1,224 captions in a fixed order."""
    things = [Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    return tuple(Caption(a, relation, b) for (a, b), relation in product(permutations(things, 2), RELATIONS))


@cache
def captions(split: str) -> tuple[Caption, ...]:
    """Return the captions of a split (`SPLITS`), in a fixed shuffled order."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of the shapes world; known: {', '.join(SPLITS)}")
    held_out = [c for c in all_captions() if c.first in HELD_OUT or c.second in HELD_OUT]
    if split == "held_out":
        return tuple(held_out)
    known = [c for c in all_captions() if c not in set(held_out)]
    order = Random(0).numpy("caption splits").permutation(len(known))
    shuffled = [known[i] for i in order]
    return tuple(shuffled[:NUM_UNSEEN] if split == "unseen" else shuffled[NUM_UNSEEN:])

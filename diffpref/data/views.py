"""Which part of an image a model sees: the centre, or one of a few keyed crops, mirrored or not."""

from __future__ import annotations

from dataclasses import dataclass

from diffpref.core.randomness import Random

__all__ = ["CENTRE", "Framing", "View"]


@dataclass(frozen=True)
class View:
    """A square cut out of a picture whose short side was resized to the model's resolution.

    Args:
        mirrored: left and right exchanged, after the cut.
        down: where the square lies along the height: 0 is the top, 1 the bottom.
        right: where it lies along the width: 0 is the left edge, 1 the right one.
    """

    mirrored: bool = False
    down: float = 0.5
    right: float = 0.5


CENTRE = View()


@dataclass(frozen=True)
class Framing:
    """In which views the images of a record are shown, and what is told of their sizes.

    Views belong to the record, so that all its candidates are cut and mirrored alike: a preference must not be
    explained by a crop. There are few of them, so that each is encoded once and cached; a visit draws one.

    Args:
        flip: also mirrored. Only for captions that do not tell left from right.
        crop: cut anywhere instead of in the centre.
        count: views with ``crop``; the centre has one, or two with ``flip``.
        original_sizes: tell original size and crop of the record's first image instead of a constant. One image speaks
            for all: sizes that differed within a pair would tell which is which.
    """

    flip: bool = False
    crop: bool = False
    count: int = 4
    original_sizes: bool = False

    def views(self, record: str, random: Random) -> tuple[View, ...]:
        """Return the views of a record's images, by its id."""
        if not self.crop:
            return (CENTRE, View(mirrored=True)) if self.flip else (CENTRE,)
        draws = [random.numpy("view", record, number).random(3).tolist() for number in range(self.count)]
        return tuple(View(self.flip and mirrored < 0.5, down, right) for mirrored, down, right in draws)

    def view(self, record: str, pair: str, visit: int, random: Random) -> View:
        """Return the view that a pair's visit draws."""
        views = self.views(record, random)
        if len(views) == 1:
            return views[0]
        return views[int(random.uniform("framing", [(pair, visit)]).item() * len(views))]

"""Which part of an image or clip a model sees: the centre, or one of a few keyed cuts, mirrored or not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random

__all__ = ["CENTRE", "ClipCut", "Framing", "View"]


@dataclass(frozen=True)
class View:
    """A square cut out of a picture whose short side was resized to the model's resolution.

    Args:
        mirrored: left and right exchanged, after the cut.
        down: where the square lies along the height: 0 is the top, 1 the bottom.
        right: where it lies along the width: 0 is the left edge, 1 the right one.
        start: of a clip, where the frames that are shown lie in time: 0 begins with the first, 1 ends with the last.
    """

    mirrored: bool = False
    down: float = 0.5
    right: float = 0.5
    start: float = 0.5


CENTRE = View()


@dataclass(frozen=True)
class ClipCut:
    """Which frames of a clip are shown, but for where they begin, which a `View` says.

    Args:
        num_frames: how many.
        stride: every so-many-th one of the clip's.
        fps: instead of a stride: frames a second of what is shown, from clips that tell their own.
    """

    num_frames: int
    stride: int = 1
    fps: float | None = None

    def frames(self, length: int, fps: float | None, start: float = 0.5, *, name: str = "a clip") -> list[int]:
        """Return the positions of the frames that are shown.

        Args:
            length: frames of the clip.
            fps: frames a second of the clip, None where it tells none.
            start: 0 begins as early as possible, 1 as late.
            name: for messages.

        Raises:
            DataError: the clip is too short, too slow for `fps`, or does not tell its speed.

        >>> ClipCut(3).frames(8, None), ClipCut(3, stride=2).frames(8, None, start=0.0)
        ([3, 4, 5], [0, 2, 4])
        >>> ClipCut(4, fps=8.0).frames(16, 24.0, start=1.0)
        [6, 9, 12, 15]
        """
        if length == 1 < self.num_frames:
            raise DataError(f"{name}: is a picture; a clip of {self.num_frames} frames is expected")
        step = float(self.stride)
        if self.fps is not None:
            if fps is None:
                raise DataError(
                    f"{name}: does not tell its frames a second, which data.fps needs; give clips that do, or take"
                    " data.frame_stride"
                )
            step = fps / self.fps
            if step < 1 - SLACK:
                raise DataError(
                    f"{name}: has {fps:g} frames a second, and data.fps asks for {self.fps:g}; ask for fewer"
                )
        span = step * (self.num_frames - 1)
        free = length - 1 - span
        if free < -SLACK:
            apart = "" if step == 1 else f", {step:g} of the clip's apart"
            raise DataError(
                f"{name}: has {length} frames, too few for {self.num_frames}{apart} (data.num_frames);"
                f" {math.ceil(span - SLACK) + 1} are needed"
            )
        places = math.floor(max(free, 0.0)) + 1
        first = min(math.floor(places * start), places - 1)
        return [min(first + math.floor(number * step + 0.5), length - 1) for number in range(self.num_frames)]


SLACK = 0.01
"""Of frames and speeds: 24 frames a second are often 23.976."""


@dataclass(frozen=True)
class Framing:
    """In which views the images of a record are shown, and what is told of their sizes.

    Views belong to the record, so that all its candidates are cut and mirrored alike: a preference must not be
    explained by a crop. There are few of them, so that each is encoded once and cached; a visit draws one.

    Args:
        flip: also mirrored. Only for captions that do not tell left from right.
        crop: cut anywhere instead of in the centre.
        count: views with ``crop`` or ``start``; the centre has one, or two with ``flip``.
        original_sizes: tell original size and crop of the record's first image instead of a constant. One image speaks
            for all: sizes that differed within a pair would tell which is which.
        start: clips begin anywhere instead of so that their middle is shown.
    """

    flip: bool = False
    crop: bool = False
    count: int = 4
    original_sizes: bool = False
    start: bool = False

    def views(self, record: str, random: Random) -> tuple[View, ...]:
        """Return the views of a record's images, by its id."""
        if not (self.crop or self.start):
            return (CENTRE, View(mirrored=True)) if self.flip else (CENTRE,)
        draws = [random.numpy("view", record, number).random(4).tolist() for number in range(self.count)]
        return tuple(self._drawn(*draw) for draw in draws)

    def _drawn(self, mirrored: float, down: float, right: float, start: float) -> View:
        place = (down, right) if self.crop else (CENTRE.down, CENTRE.right)
        return View(self.flip and mirrored < 0.5, *place, start if self.start else CENTRE.start)

    def view(self, record: str, pair: str, visit: int, random: Random) -> View:
        """Return the view that a pair's visit draws."""
        views = self.views(record, random)
        if len(views) == 1:
            return views[0]
        return views[int(random.uniform("framing", [(pair, visit)]).item() * len(views))]

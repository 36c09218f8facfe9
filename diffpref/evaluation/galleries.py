"""What a report shows of the pictures and clips themselves: galleries in its page, and sheets beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from diffpref.core.media import Clip
from diffpref.evaluation import sections
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.selection import order_by_gain
from diffpref.evaluation.standings import Standings
from diffpref.plotting import PictureRow, as_uint8, labelled_grid, picture_grid
from diffpref.plotting.canvas import BLUE, INK, ORANGE
from diffpref.plotting.clips import Strip, encode_gif, encode_mp4, frames_to_show, strip, strip_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffpref.core.contracts import Media

__all__ = ["Galleries", "Pictures"]

Pictures: TypeAlias = "Callable[[str, Sequence[int]], Sequence[Media]]"
"""A contender and positions to the pictures or clips there."""

Marks: TypeAlias = "tuple[tuple[int, int], tuple[int, int]] | None"

LARGEST = 384  # pixels; larger pictures are reduced before they are put into the page
LARGEST_CLIP = 192  # pixels; of each of the many frames in the page
MOVING_TILE = 128  # pixels, in a sheet that moves
IN_THE_PAGE, PAGE_FRAME = 6, 64  # frames of a strip in the page, and their side
UNTOLD = 8.0
"""Frames a second of clips of which nobody said how fast they run."""


class Galleries:
    """The galleries of a page, and the sheets beside it; empty where there are no pictures.

    Args:
        standings: every number.
        pictures: shows those that are asked for; None: there are none.
        num_extremes: pairs shown at each end of the ranking.
    """

    def __init__(self, standings: Standings, pictures: Pictures | None, num_extremes: int) -> None:
        self.standings, self.pictures, self.num_extremes = standings, pictures, num_extremes
        self._shown = lru_cache(maxsize=None)(self._show)

    def _show(self, name: str, position: int) -> sections.Shown:
        """Return a picture for the page; a clip moves there, and stands below as a strip."""
        assert self.pictures is not None
        item = self.pictures(name, [position])[0]
        if isinstance(item, Clip):
            clip = frames_to_show(item)
            moving = encode_gif([_reduced(frame, LARGEST_CLIP) for frame in clip.frames], _fps(clip))
            still = strip(clip, count=IN_THE_PAGE, side=PAGE_FRAME)
            return sections.Shown(_uri("gif", moving), _uri("png", _png(still)))
        return sections.Shown(_uri("png", _png(_reduced(item, LARGEST))))

    def _pairs(self, one: Comparison, positions: Iterable[int]) -> list[str]:
        base, aligned = one.names
        return [
            sections.pair(one.items[i], self._shown(base, i), self._shown(aligned, i), one.names) for i in positions
        ]

    def sample(self, one: Comparison, sampled: Sequence[int]) -> str:
        """Return pairs that nobody picked."""
        if self.pictures is None:
            return ""
        told = f"{len(sampled)} of {len(one.items)} pairs, drawn by a fixed seed before anyone saw them."
        return sections.gallery("Before and after", told, self._pairs(one, sampled))

    def several(self, sampled: Sequence[int]) -> str:
        """Return what all contenders drew from the same prompts and seeds, which nobody picked."""
        if self.pictures is None:
            return ""
        told = f"{len(sampled)} of {len(self.standings.prompts)} prompts and seeds, drawn by a fixed seed."
        figures = [
            sections.several(self.standings, i, {name: self._shown(name, i) for name in self.standings.columns})
            for i in sampled
        ]
        return sections.gallery("Side by side", told, figures, wide=True)

    def extremes(self, one: Comparison) -> list[str]:
        """Return the pairs with the largest gains and losses."""
        if self.pictures is None:
            return []
        better, worse = order_by_gain(one)
        measure = "facts right, then by the first judge's score" if one.facts else "the first judge's score"
        shown = f"Ordered by the change in {measure}. The first {self.num_extremes} of"
        gains, losses = (self._pairs(one, ends[: self.num_extremes]) for ends in (better, worse))
        return [
            sections.gallery("Largest gains", f"{shown} {len(better)} pairs that improved.", gains),
            sections.gallery("Largest losses", f"{shown} {len(worse)} pairs that got worse.", losses),
        ]

    def sheets(self, sampled: Sequence[int]) -> dict[str, bytes]:
        """Return the files of the sample: ``grid.png``; of clips strips in it, and what moves in files of its own."""
        if self.pictures is None or not sampled:
            return {}
        shown = {name: list(self.pictures(name, sampled)) for name in self.standings.columns}
        if not any(isinstance(item, Clip) for items in shown.values() for item in items):
            return {"grid.png": _png(self._grid(sampled, shown))}
        clips = {name: [frames_to_show(clip) for clip in items] for name, items in shown.items()}
        every = [clip for items in clips.values() for clip in items]
        fps = _fps(every[0])
        frames = []
        for k in range(min(len(clip.frames) for clip in every)):
            now = {name: [clip.frames[k] for clip in items] for name, items in clips.items()}
            frames.append(self._grid(sampled, now, MOVING_TILE))
        found = {"grid.png": _png(self._strips(sampled, clips)), "grid.gif": encode_gif(frames, fps)}
        return found | ({"grid.mp4": encode_mp4(frames, fps)} if find_spec("av") else {})

    def _grid(self, sampled: Sequence[int], shown: dict[str, list[Media]], tile: int | None = None) -> Image:
        """Return pairs, or a row a prompt where there are not two contenders."""
        names, options = list(self.standings.columns), {} if tile is None else {"tile": tile}
        prompts = [self.standings.prompts[i] for i in sampled]
        if len(names) != 2:
            rows = [(prompt, [shown[name][k] for name in names]) for k, prompt in enumerate(prompts)]
            return labelled_grid(rows, heads=names, **options)
        base, aligned = self.standings.against, self.standings.others[0]
        marks = [self._marks(base, aligned, i) for i in sampled]
        pairs = zip(prompts, shown[base], shown[aligned], marks, strict=True)
        return picture_grid([PictureRow(*row) for row in pairs], labels=(base, aligned), **options)

    def _strips(self, sampled: Sequence[int], clips: dict[str, list[Clip]]) -> Image:
        def label(name: str, position: int) -> str:
            facts = self.standings.columns[name].facts
            right = sum(bool(values[position]) for values in facts.values())
            return f"{name} {right}/{len(facts)}" if facts else name

        alone, against = len(self.standings.others) == 1, self.standings.against
        colours = {name: ORANGE if name == against else BLUE if alone else INK for name in clips}
        rows = [
            (
                self.standings.prompts[i],
                [Strip(label(name, i), items[k], colours[name]) for name, items in clips.items()],
            )
            for k, i in enumerate(sampled)
        ]
        return strip_sheet(rows)

    def _marks(self, base: str, aligned: str, position: int) -> Marks:
        columns = [self.standings.columns[name].facts for name in (base, aligned)]
        counts = [(sum(bool(values[position]) for values in facts.values()), len(facts)) for facts in columns]
        return (counts[0], counts[1]) if columns[0] else None


def _fps(clip: Clip) -> float:
    return UNTOLD if clip.fps is None else clip.fps


def _reduced(picture: Media, side: int) -> Image:
    """Return a picture of at most so many pixels a side; a smaller one as it is."""
    from PIL import Image

    found = Image.fromarray(as_uint8(picture))
    found.thumbnail((side, side))
    return found


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

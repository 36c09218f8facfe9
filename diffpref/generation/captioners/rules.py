"""Captions by rules, without a model: what the shapes world shows; of other pictures the prompt with their colours.

A picture of the shapes world is read as the oracle reads it, and told in the world's own grammar; where the oracle
cannot name a colour or a shape, the prompt's word stands. Of any other picture the rules know no objects: they say the
prompt, and what can be measured: the two colours that cover most of it, and how light it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from diffpref.config import Section
from diffpref.core.contracts import Clip, Media
from diffpref.core.errors import DataError
from diffpref.data.images import to_uint8
from diffpref.generation.captioners import registry
from diffpref.shapes.grammar import Caption, Thing
from diffpref.shapes.motion import MovingCaption
from diffpref.shapes.motion_oracle import watch
from diffpref.shapes.oracle import Seen, look, relation

__all__ = ["Rules", "describe"]

PALETTE = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (210, 40, 40),
    "orange": (235, 140, 40),
    "yellow": (240, 215, 60),
    "green": (60, 150, 70),
    "blue": (50, 95, 205),
    "purple": (145, 65, 180),
    "pink": (235, 150, 180),
    "brown": (120, 80, 50),
}
LIGHT = ((70, "dark"), (185, "evenly lit"), (256, "bright"))
"""Mean brightness below which a picture is called so."""


@registry.register("rules")
class Rules(Section):
    """It has no options."""

    def load(self, device: str) -> Any:
        """Return `describe` for many."""
        return Describer()


class Describer:
    """The captioner; it reads no seeds."""

    identity = "rules 1"

    def __call__(self, media: Sequence[Media], prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [describe(one, prompt) for one, prompt in zip(media, prompts, strict=True)]


def describe(media: Media, prompt: str) -> str:
    """Return what a picture or clip shows.

    Args:
        media: of any kind that `diffpref.data.to_uint8` takes; of a clip as `Clip` of (F, H, W, 3) uint8 frames.
        prompt: that it answers.
    """
    if isinstance(media, Clip):
        frames = np.asarray(media.frames)
        return _moving(frames, prompt) or _measured(frames.reshape(-1, *frames.shape[2:]), prompt)
    pixels = to_uint8(media)
    return _shapes(pixels, prompt) or _measured(pixels, prompt)


def _shapes(pixels: np.ndarray, prompt: str) -> str:
    """Tell what a picture of the shapes world shows; nothing of a prompt or a picture that is not of it."""
    try:
        asked = Caption.parse(prompt)
    except DataError:
        return ""
    seen = look(pixels)[:2]
    if not seen:
        return ""
    things = (asked.first, asked.second)

    def agreement(order: Sequence[Seen], meant: Sequence[Thing] = things) -> int:
        return sum((s.colour == t.colour) + (s.shape == t.shape) for s, t in zip(order, meant, strict=True))

    if len(seen) == 1:
        return str(_named(seen[0], max(things, key=lambda thing: agreement(seen, [thing]))))

    first, second = max(permutations(seen), key=agreement)
    return f"{_named(first, asked.first)} {relation(first, second)} {_named(second, asked.second)}"


def _named(seen: Seen, thing: Thing) -> Thing:
    return Thing(seen.colour or thing.colour, seen.shape or thing.shape)


def _moving(frames: np.ndarray, prompt: str) -> str:
    try:
        asked = MovingCaption.parse(prompt)
    except DataError:
        return ""
    if len(frames) < 2:
        return ""
    seen = watch(frames)
    thing = Thing(seen.colour or asked.thing.colour, seen.shape or asked.thing.shape)
    return str(MovingCaption(thing, seen.direction or asked.direction, seen.speed or asked.speed))


def _measured(pixels: np.ndarray, prompt: str) -> str:
    """Return the prompt with what can be measured of (H, W, 3) pixels."""
    names, colours = list(PALETTE), np.array(list(PALETTE.values()), dtype=np.float64)
    step = max(1, pixels.shape[0] // 64, pixels.shape[1] // 64)  # some thousand of its pixels tell enough
    sample = pixels[::step, ::step].reshape(-1, 3).astype(np.float64)
    nearest = np.linalg.norm(sample[:, None] - colours, axis=2).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(names))
    common = [names[number] for number in np.argsort(-counts, kind="stable")[:2] if counts[number]]
    light = next(word for limit, word in LIGHT if sample.mean() < limit)
    return f"{prompt.strip().rstrip('.')}, mostly {' and '.join(common)}, {light}"

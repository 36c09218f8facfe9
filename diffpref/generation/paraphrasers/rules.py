"""Paraphrases by rules, without a model: a keyed share of the words is exchanged for others of their kind.

A caption of the shapes world stays one: so many of its facts (colours, shapes, relation; of a moving shape direction
and speed) are changed as the level says, because its models know no other words. In plain English words are exchanged
for near synonyms; of words that have none a third may be left out, and a hedge stands before what is still too near.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffpref.config import Section
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.generation.paraphrasers import registry
from diffpref.generation.paraphrasers._lexicon import OTHERS
from diffpref.shapes.grammar import COLOURS, RELATIONS, SHAPES, Caption, Thing
from diffpref.shapes.motion import DIRECTIONS, SPEEDS, MovingCaption

__all__ = ["Rules", "reworded"]

HEDGES = ("what looks like", "a kind of", "something like", "an impression of")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


@registry.register("rules")
class Rules(Section):
    """It has no options."""

    def load(self, device: str) -> Any:
        """Return `reworded` for many."""
        return Reworder()


class Reworder:
    """The paraphraser."""

    identity = "rules 1"

    def __call__(self, texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
        return [reworded(text, level, seed) for text, seed in zip(texts, seeds, strict=True)]


def reworded(text: str, level: int, seed: int) -> str:
    """Return a text with other words; never the same text.

    Args:
        text: a caption, of the shapes world or in plain English.
        level: share of facts or words to change, 1 to 100 percent; at least one is.
        seed: of the draws.

    >>> reworded("a red circle left of a blue square", 40, 0) != "a red circle left of a blue square"
    True
    """
    draw = Random(seed).numpy("rewording", text, level)
    for change in (_still, _moving):
        try:
            return change(text, level, draw)
        except DataError:  # not of this grammar
            continue
    return _english(text, level, draw)


def _facts(facts: Sequence[tuple[str, Sequence[str]]], level: int, draw: np.random.Generator) -> list[str]:
    """Return facts of which a share is exchanged; each is a word and the words of its kind."""
    count = max(1, round(level / 100 * len(facts)))
    changed = {int(number) for number in draw.permutation(len(facts))[:count]}
    return [
        str(draw.choice([other for other in kind if other != word])) if number in changed else word
        for number, (word, kind) in enumerate(facts)
    ]


def _still(text: str, level: int, draw: np.random.Generator) -> str:
    caption = Caption.parse(text)
    first, second, colours = caption.first, caption.second, list(COLOURS)
    facts = [
        (first.colour, colours),
        (first.shape, SHAPES),
        (caption.relation, RELATIONS),
        (second.colour, colours),
        (second.shape, SHAPES),
    ]
    while True:  # two things that are alike have no caption in this world
        one, shape, relation, other, last = _facts(facts, level, draw)
        if (one, shape) != (other, last):
            return str(Caption(Thing(one, shape), relation, Thing(other, last)))


def _moving(text: str, level: int, draw: np.random.Generator) -> str:
    caption = MovingCaption.parse(text)
    thing = caption.thing
    facts = [
        (thing.colour, list(COLOURS)),
        (thing.shape, SHAPES),
        (caption.direction, list(DIRECTIONS)),
        (caption.speed, list(SPEEDS)),
    ]
    colour, shape, direction, speed = _facts(facts, level, draw)
    return str(MovingCaption(Thing(colour, shape), direction, speed))


def _english(text: str, level: int, draw: np.random.Generator) -> str:
    places = list(_WORD.finditer(text))
    wanted = max(1, round(level / 100 * len(places)))
    known = [number for number, place in enumerate(places) if place[0].lower() in OTHERS]
    unknown = [number for number in range(len(places)) if number not in set(known)]
    chosen = [known[int(k)] for k in draw.permutation(len(known))][:wanted]
    missing = wanted - len(chosen)
    # of what has no other word a third may go, as long as the caption still says something
    gone = {unknown[int(k)] for k in draw.permutation(len(unknown))[: min(missing, len(unknown) // 3)]}
    made = _edited(text, places, {number: _other(draw) for number in chosen}, gone)
    if missing > len(gone) or made == text:
        made = f"{HEDGES[int(draw.integers(len(HEDGES)))]} {made[:1].lower()}{made[1:]}".strip()
    return made


def _other(draw: np.random.Generator) -> Callable[[str], str]:
    def other(word: str) -> str:
        found = OTHERS[word.lower()]
        chosen = found[int(draw.integers(len(found)))]
        return chosen.capitalize() if word[:1].isupper() else chosen

    return other


def _edited(
    text: str, places: Sequence[re.Match[str]], changes: dict[int, Callable[[str], str]], gone: set[int]
) -> str:
    parts, end = [], 0
    for number, place in enumerate(places):
        parts.append(text[end : place.start()])
        end = place.end()
        if number not in gone:
            parts.append(changes[number](place[0]) if number in changes else place[0])
    made = "".join([*parts, text[end:]])
    return re.sub(r"\s+([,.;:!?])", r"\1", re.sub(r"\s{2,}", " ", made)).strip(" ,;:")

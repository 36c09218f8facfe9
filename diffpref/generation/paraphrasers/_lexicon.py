"""Words that stand for one another in captions: near synonyms, kin, and small words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["OTHERS"]

GROUPS = (
    # what things are called
    "picture image photo photograph shot view",
    "painting drawing illustration artwork sketch",
    "man person fellow gentleman figure",
    "woman lady girl person",
    "boy child kid youngster",
    "people persons folk crowd",
    "dog puppy hound pup",
    "cat kitten kitty feline",
    "bird fowl songbird",
    "horse pony steed mare",
    "car automobile vehicle sedan",
    "house home cottage building",
    "city town metropolis village",
    "street road lane avenue",
    "forest wood woodland grove",
    "sea ocean water bay",
    "lake pond pool lagoon",
    "river stream creek brook",
    "mountain hill peak summit",
    "field meadow pasture lawn",
    "garden yard park orchard",
    "sky heaven clouds air",
    "sun sunlight sunshine daylight",
    "night evening dusk midnight",
    "table desk counter bench",
    "chair seat stool armchair",
    "room chamber hall space",
    "boat ship vessel sailboat",
    "hat cap bonnet helmet",
    "dress gown robe frock",
    "face visage portrait head",
    "flower blossom bloom rose",
    "tree oak pine birch",
    "robot android machine automaton",
    "castle fortress palace tower",
    # what they are like
    "big large huge great",
    "small little tiny miniature",
    "old ancient aged vintage",
    "new modern recent fresh",
    "young youthful juvenile",
    "beautiful lovely pretty gorgeous stunning",
    "happy cheerful joyful glad smiling",
    "sad gloomy sorrowful unhappy",
    "bright vivid brilliant luminous",
    "dark dim shadowy murky",
    "red crimson scarlet ruby",
    "green emerald olive jade",
    "blue azure navy sapphire",
    "yellow golden amber lemon",
    "purple violet lilac magenta",
    "black ebony jet charcoal",
    "white pale ivory snowy",
    "brown tan chestnut umber",
    "grey gray silver ashen",
    "detailed intricate elaborate fine",
    "realistic lifelike photorealistic natural",
    "colorful colourful vibrant bright",
    "quiet calm peaceful still",
    "wooden timber oaken",
    "tall high towering",
    "long lengthy extended",
    "round circular spherical",
    "square boxy rectangular",
    # what they do
    "sitting seated resting perched",
    "standing upright waiting posing",
    "walking strolling wandering marching",
    "running racing sprinting dashing",
    "holding carrying grasping clutching",
    "wearing sporting donning",
    "looking gazing staring peering",
    "flying soaring gliding hovering",
    "riding driving steering",
    "eating munching chewing tasting",
    "playing frolicking romping",
)
"""Of one group each word stands for each other."""
SMALL = (
    "a one some",
    "an one some",
    "the this that",
    "with having featuring",
    "in inside within",
    "on upon atop",
    "near beside by",
    "under beneath below",
    "over above across",
    "behind past beyond",
    "and plus alongside",
    "of from",
    "at by around",
    "is looks seems",
    "very quite rather really",
    "two several few",
    "three several few",
    "many numerous countless",
)
"""The first word of a line becomes one of the others, and these stay what they are."""


def _others() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for head, *rest in map(str.split, SMALL):
        found[head] = tuple(rest)
    for words in map(str.split, GROUPS):
        for word in words:
            found.setdefault(word, tuple(other for other in words if other != word))
    return found


OTHERS: Mapping[str, tuple[str, ...]] = MappingProxyType(_others())
"""Word -> what may stand for it."""

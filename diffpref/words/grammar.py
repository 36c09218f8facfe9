"""The instructions of the words world: which words of a list, in which order, in which letters.

An instruction is drawn from a key, and a hash of its text decides once and for all to which split it belongs:

- ``seen``: what the bundled decoder was trained on;
- ``unseen``: what preferences are collected on;
- ``held_out``: what models are compared on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random, hash_key

__all__ = [
    "CLOSE",
    "KINDS",
    "LETTERS",
    "MAX_WORDS",
    "ORDERS",
    "SPLITS",
    "WORDS",
    "Instruction",
    "instructions",
    "split_of",
]

KINDS = {
    "animals": ("ant", "bee", "cat", "dog", "fox", "hen", "owl", "pig"),
    "fruits": ("apple", "date", "fig", "grape", "kiwi", "lemon", "melon", "pear"),
    "tools": ("axe", "brush", "drill", "file", "hammer", "nail", "rope", "saw"),
}
WORDS = tuple(word for words in KINDS.values() for word in words)
ORDERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "keep": list,
    "reverse": lambda words: list(words)[::-1],
    "sort": sorted,
}
LETTERS: dict[str, Callable[[str], str]] = {"quiet": str.lower, "loud": str.upper}
SPLITS = ("seen", "unseen", "held_out")
MIN_WORDS, MAX_WORDS = 3, 7
CLOSE = "."
"""What ends an answer."""

_SHARES = ("held_out", "unseen", "unseen", "seen", "seen", "seen", "seen", "seen")  # by the text's hash, of eight


@dataclass(frozen=True)
class Instruction:
    """Take the words of a kind (or ``all``), in an order of `ORDERS`, in letters of `LETTERS`.

    ``str()`` gives the prompt that models read, `answer` the only right answer.

    >>> instruction = Instruction("sort", "animals", "loud", ("pear", "cat", "hammer", "ant"))
    >>> str(instruction), instruction.answer
    ('sort animals loud : pear cat hammer ant =', 'ANT CAT .')
    """

    order: str
    kind: str
    letters: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.order} {self.kind} {self.letters} : {' '.join(self.words)} ="

    @property
    def wanted(self) -> tuple[str, ...]:
        """The right words in the right order, in small letters."""
        taken = [word for word in self.words if self.kind == "all" or word in KINDS[self.kind]]
        return tuple(ORDERS[self.order](taken))

    @property
    def answer(self) -> str:
        """The right answer."""
        return " ".join([*map(LETTERS[self.letters], self.wanted), CLOSE])

    @classmethod
    def parse(cls, text: str) -> Instruction:
        """Read a prompt back.

        Raises:
            DataError: the text is not an instruction of this grammar.
        """
        heads = (ORDERS, ["all", *KINDS], LETTERS)
        match = re.fullmatch(" ".join(f"({'|'.join(head)})" for head in heads) + r" : ([a-z ]+) =", text.strip())
        words = tuple(match[4].split(" ")) if match else ()
        if match and set(words) <= set(WORDS) and 1 <= len(words) == len(set(words)) <= MAX_WORDS:
            instruction = cls(match[1], match[2], match[3], words)
            if instruction.wanted:
                return instruction
        raise DataError(
            f"not an instruction of the words world: {text!r}; expected one like 'sort animals loud : pear cat ant ='"
        )


def split_of(instruction: Instruction) -> str:
    """Return the split to which an instruction belongs."""
    return _SHARES[hash_key("words split", str(instruction)) % len(_SHARES)]


def _draw(number: int, stream: str) -> Instruction:
    generator = Random(0).numpy("instruction", stream, number)
    order = list(ORDERS)[generator.integers(len(ORDERS))]
    kind = ["all", *KINDS][generator.integers(1 + len(KINDS))]
    letters = list(LETTERS)[generator.integers(len(LETTERS))]
    count = int(generator.integers(MIN_WORDS, MAX_WORDS + 1))
    words = tuple(WORDS[i] for i in generator.permutation(len(WORDS))[:count])
    return Instruction(order, kind, letters, words)


@cache
def instructions(split: str, count: int) -> tuple[Instruction, ...]:
    """Return the first ``count`` different instructions of a split; each asks for at least two words.

    A longer list begins with the shorter one.

    Raises:
        DataError: there is no such split.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of the words world; known: {', '.join(SPLITS)}")
    found: dict[Instruction, None] = {}
    number = 0
    while len(found) < count:
        instruction, number = _draw(number, split), number + 1
        if len(instruction.wanted) > 1 and split_of(instruction) == split:
            found[instruction] = None
    return tuple(found)

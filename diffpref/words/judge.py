"""The judge: reads an answer of the words world and tells how much of what was asked for it gives.

Six parts, each from 0 to 1; a part that is 1 is a fact that holds, and all six hold for the right answer only. It is a
plain program: no model is ever trained on it.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from diffpref.words.grammar import CLOSE, LETTERS, Instruction

__all__ = ["FACTS", "facts", "parts", "score"]

FACTS = ("closed", "count", "first", "order", "selection", "letters")


def parts(answer: str, instruction: Instruction) -> dict[str, float]:
    """Return how far each of `FACTS` is met, from 0 to 1.

    - ``closed``: 1 if the answer ends with its only full stop.
    - ``count``: 1 less the relative difference of the number of words, at least 0.
    - ``first``: 1 if the first word is the right one.
    - ``order``: the share of pairs of wanted words that both appear (first appearances count) in the right order;
      where one word is wanted, whether it appears.
    - ``selection``: wanted words given, over all words wanted or given, each as often as it is there (Jaccard).
    - ``letters``: the share of words in the letters asked for.
    """
    words = answer.split()
    given = [word for word in words if word != CLOSE]
    plain, wanted = [word.lower() for word in given], list(instruction.wanted)
    places = {word: plain.index(word) for word in wanted if word in plain}
    pairs = list(combinations(wanted, 2))
    ordered = sum(a in places and b in places and places[a] < places[b] for a, b in pairs)
    shared = (Counter(plain) & Counter(wanted)).total()
    write = LETTERS[instruction.letters]
    return {
        "closed": float(words[-1:] == [CLOSE] and words.count(CLOSE) == 1),
        "count": max(0.0, 1 - abs(len(given) - len(wanted)) / len(wanted)),
        "first": float(plain[:1] == wanted[:1]),
        "order": ordered / len(pairs) if pairs else float(len(places)),
        "selection": shared / (Counter(plain) | Counter(wanted)).total(),
        "letters": sum(word == write(word) for word in given) / len(given) if given else 0.0,
    }


def facts(answer: str, instruction: Instruction) -> dict[str, bool]:
    """Tell for each of `FACTS` whether it holds."""
    return {name: value == 1.0 for name, value in parts(answer, instruction).items()}


def score(answer: str, instruction: Instruction) -> float:
    """Return the mean of the six parts, 0..1: 1 for the right answer and for no other."""
    return sum(parts(answer, instruction).values()) / len(FACTS)

"""The words world: instructions to choose, order and write the words of a short list, and the judge of the answers.

``sort animals loud : pear cat hammer ant =`` asks for ``ANT CAT .``. It is for text what the shapes world is for
pictures: small enough for a decoder of half a million parameters, with a ground truth that a program checks.
"""

from __future__ import annotations

from diffpref.words.grammar import SPLITS, Instruction, instructions
from diffpref.words.judge import FACTS, facts, parts, score

__all__ = ["FACTS", "SPLITS", "Instruction", "facts", "instructions", "parts", "score"]

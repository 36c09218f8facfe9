"""The bundled set of GenEval type: captions of the shapes world, each with one question of GenEval's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._prompt_set import PromptSet
from diffpref.shapes.grammar import Caption, captions

__all__ = ["NAME", "TASKS", "clauses", "shapes_geneval"]

NAME = "shapes_geneval"
TASKS = ("two_object", "counting", "color_attr", "position")
"""The tasks of GenEval that a caption of two objects can ask; `single_object` and `colors` need captions of one."""
COUNT = 100


def clauses(caption: Caption, task: str) -> dict[str, Any]:
    """Return GenEval's metadata of one task for a caption: ``tag``, ``include``, ``exclude`` and ``prompt``.

    GenEval tells objects apart by their class, so that ``counting`` wants two of one shape and the others two shapes.
    """
    first, second = ({"class": thing.shape, "count": 1} for thing in (caption.first, caption.second))
    told: dict[str, Any] = {"tag": task, "include": [first, second], "prompt": str(caption)}
    if task == "counting":
        told["include"] = [{"class": caption.first.shape, "count": 2}]
        told["exclude"] = [{"class": caption.first.shape, "count": 3}]
    elif task == "color_attr":
        first["color"], second["color"] = caption.first.colour, caption.second.colour
    elif task == "position":
        told["include"] = [second, {**first, "position": [caption.relation, 0]}]
    return told


def _questions() -> Iterator[dict[str, Any]]:
    """Yield tasks in turn, each with the next unseen caption that can ask it; no caption comes twice."""
    alike = iter([caption for caption in captions("unseen") if caption.first.shape == caption.second.shape])
    different = iter([caption for caption in captions("unseen") if caption.first.shape != caption.second.shape])
    while True:
        for task in TASKS:
            caption = next(alike if task == "counting" else different, None)
            if caption is None:
                return
            yield clauses(caption, task)


def shapes_geneval(word: str = NAME) -> PromptSet:
    """Return the first 100 (``shapes_geneval``) or COUNT (``shapes_geneval:COUNT``) questions about unseen captions.

    Raises:
        DataError: more than there are, or no count.
    """
    match = re.fullmatch(rf"{NAME}(?::(\d+))?", word, re.ASCII)
    questions = list(_questions())
    count = int(match[1] or COUNT) if match else 0
    if not 0 < count <= len(questions):
        raise DataError(f"prompts '{word}': expected {NAME} or {NAME}:COUNT with a count of 1-{len(questions)}")
    chosen = questions[:count]
    prompts = tuple(question["prompt"] for question in chosen)
    return PromptSet(
        name=word,
        sha256=hashlib.sha256("\n".join(f"{one['tag']}\t{one['prompt']}" for one in chosen).encode()).hexdigest(),
        prompts=prompts,
        categories={"tag": tuple((question["tag"],) for question in chosen)},
        metadata=tuple(chosen),
        source=word,
        licence="Apache-2.0",
    )

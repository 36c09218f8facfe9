"""GenEval's rules: what a picture must show, and three ways to judge whether it does.

Sources: djghosh13/geneval, evaluation/evaluate_images.py (``strict``); yifan123/reward-server, gen_eval.py (``exact``
and ``soft``), which Flow-GRPO trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffpref.core.errors import DataError, suggest
from diffpref.rewards._objects import Box, Found

__all__ = ["RELATIONS", "Scene", "Specification", "Wanted", "exact", "relations", "soft", "specification", "strict"]

RELATIONS = ("left of", "right of", "above", "below")
POSITION_THRESHOLD = 0.1


@dataclass(frozen=True)
class Wanted:
    """One clause: ``count`` objects of a class, maybe of a colour, maybe placed relative to an earlier clause's."""

    name: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class Specification:
    """What a picture must show.

    Args:
        tag: the task, such as ``"counting"``.
        include: clauses that must all hold.
        exclude: clauses of which none may: so many objects, or more.
    """

    tag: str
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()

    @property
    def classes(self) -> list[str]:
        """Every class that matters, once."""
        return list(dict.fromkeys(clause.name for clause in (*self.include, *self.exclude)))


def specification(
    told: Mapping[str, Any], where: str, classes: frozenset[str] | None, palette: Sequence[str] | None
) -> Specification:
    """Read metadata ``{tag, include: [{class, count, color?, position?: [relation, clause]}], exclude?}``.

    Args:
        told: the metadata.
        where: it stands, for messages.
        classes: that the detector knows; None: any.
        palette: colours that can be told; empty: any; None: nobody names colours.

    Raises:
        DataError: something else, or a class or a colour that nobody could find: a score of 0 would be a lie.
    """
    clauses: dict[str, tuple[Wanted, ...]] = {}
    for part in ("include", "exclude"):
        listed = told.get(part) or []
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise DataError(f"{where}: {part} must be a list of clauses, got {listed!r}")
        clauses[part] = tuple(
            _wanted(clause, number, f"{where}, {part} {number}") for number, clause in enumerate(listed)
        )
    if not clauses["include"]:
        found = ", ".join(told) or "nothing"
        raise DataError(f"{where}: metadata of GenEval has tag and include, [{{class, count, ...}}]; found {found}")
    result = Specification(str(told.get("tag", "")), clauses["include"], clauses["exclude"])
    for clause in (*result.include, *result.exclude):
        if classes is not None and clause.name not in classes:
            raise DataError(
                f"{where}: the detector knows no '{clause.name}'{suggest(clause.name, classes) or ';'}"
                f" it knows {len(classes)} classes"
            )
        if clause.colour is None:
            continue
        if palette is None:
            raise DataError(f"{where}: wants a colour, which nobody names; give colours: the path of a CLIP model")
        if palette and clause.colour not in palette:
            raise DataError(f"{where}: unknown colour '{clause.colour}'; known: {', '.join(palette)}")
    return result


def _wanted(clause: Any, number: int, where: str) -> Wanted:
    if not isinstance(clause, Mapping) or not isinstance(clause.get("class"), str):
        raise DataError(f"{where}: expected {{class, count, color?, position?}}, got {clause!r}")
    if unknown := sorted(set(clause) - {"class", "count", "color", "position"}):
        raise DataError(f"{where}: unknown '{unknown[0]}'; known: class, count, color, position")
    count, position = clause.get("count"), clause.get("position")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise DataError(f"{where}: count must be 1 or more, got {count!r}")
    if position is not None:
        relation, target = position if isinstance(position, list | tuple) and len(position) == 2 else (None, None)
        if relation not in RELATIONS or not isinstance(target, int) or not 0 <= target < number:
            raise DataError(
                f"{where}: position must be [relation, number of an earlier clause] with a relation of"
                f" {', '.join(RELATIONS)}, got {position!r}"
            )
        position = (relation, target)
    return Wanted(clause["class"], count, clause.get("color"), position)


def relations(first: Box, second: Box, threshold: float = POSITION_THRESHOLD) -> set[str]:
    """Return where the first box lies of the second: none, one or two of `RELATIONS`.

    Each component of the offset of their centres is shrunk by ``threshold`` times the two sizes along it; a direction
    holds where what is left is more than half of the length of the *unshrunk* offset.
    """
    boxes = np.array([first, second], dtype=np.float64).reshape(2, 2, 2)
    offset = boxes[0].mean(axis=0) - boxes[1].mean(axis=0)
    sizes = np.abs(boxes[:, 1] - boxes[:, 0]).sum(axis=0)
    left = np.maximum(np.abs(offset) - threshold * sizes, 0) * np.sign(offset)
    if (np.abs(left) < 1e-3).all():
        return set()
    across, down = left / np.linalg.norm(offset)
    holds = dict(zip(RELATIONS, (across < -0.5, across > 0.5, down < -0.5, down > 0.5), strict=True))
    return {relation for relation, true in holds.items() if true}


@dataclass
class Scene:
    """What was found in a picture.

    Args:
        objects: class -> objects, the surest first.
        name_colours: names the colours of objects.
        position_threshold: see `relations`.
    """

    objects: Mapping[str, Sequence[Found]]
    name_colours: Callable[[Sequence[Found]], Sequence[str | None]]
    position_threshold: float = POSITION_THRESHOLD
    _colours: dict[str, list[str | None]] = field(default_factory=dict)

    def of(self, name: str) -> Sequence[Found]:
        """Return the objects of a class."""
        return self.objects.get(name, [])

    def colours(self, name: str) -> list[str | None]:
        """Return the colours of the objects of a class, named once."""
        if name not in self._colours:
            self._colours[name] = list(self.name_colours(self.of(name)))
        return self._colours[name]

    def placed(self, objects: Sequence[Found], relation: str, targets: Sequence[Found]) -> bool:
        """Return whether every object lies so of every target."""
        pairs = ((one.box, target.box) for one in objects for target in targets)
        return all(relation in relations(*pair, self.position_threshold) for pair in pairs)


def strict(scene: Scene, wanted: Specification) -> float:
    """Return 1 or 0 by the benchmark's rule: at least so many, the surest of the colour and in place; none excluded."""
    groups: list[Sequence[Found] | None] = []
    for clause in wanted.include:
        found = scene.of(clause.name)[: clause.count]
        matched = len(found) == clause.count
        if matched and clause.colour is not None:
            matched = scene.colours(clause.name)[: clause.count].count(clause.colour) == clause.count
        if matched and clause.position is not None:
            relation, target = clause.position
            others = groups[target]
            matched = others is not None and scene.placed(found, relation, others)
        groups.append(found if matched else None)
    excluded = any(len(scene.of(clause.name)) >= clause.count for clause in wanted.exclude)
    return float(None not in groups and not excluded)


def _graded(scene: Scene, wanted: Specification, legacy: bool) -> tuple[list[float], bool]:
    """Return a grade for each thing that is wanted, and whether all of it holds; counts must be met exactly."""
    grades: list[float] = []
    groups: list[Sequence[Found] | None] = []
    for clause in wanted.include:
        found = scene.of(clause.name)
        grades.append(1 - abs(clause.count - len(found)) / clause.count)
        matched = len(found) == clause.count
        if not matched and (clause.colour is not None or clause.position is not None):
            grades.append(0.0)
        if matched and clause.colour is not None:
            right = scene.colours(clause.name).count(clause.colour)
            grades.append(1 - abs(clause.count - right) / clause.count)
            matched = right == clause.count
        if matched and clause.position is not None:
            relation, target = clause.position
            others = groups[target]
            matched = others is not None and scene.placed(found, relation, others)
            # the official code goes on after a relation that fails, and appends the grade of one that holds as well
            grades += [0.0, 1.0] if legacy and not matched and others is not None else [float(matched)]
        groups.append(found if matched else None)
    return grades, None not in groups


def exact(scene: Scene, wanted: Specification) -> float:
    """Return 1 or 0 by the rule of training: exactly so many of each, colours and places right; exclusions not read."""
    return float(_graded(scene, wanted, legacy=False)[1])


def soft(scene: Scene, wanted: Specification, *, legacy: bool = False) -> float:
    """Return the mean of grades: ``1 - |wanted - found| / wanted`` for counts and colours, 1 or 0 for places.

    It is 1 where all is right, and may be negative where more than twice as many objects are there as are wanted.

    Args:
        scene: what was found.
        wanted: what should be.
        legacy: a relation that fails counts as 0 *and* 1, as in the official code.
    """
    grades, _ = _graded(scene, wanted, legacy)
    return sum(grades) / len(grades)

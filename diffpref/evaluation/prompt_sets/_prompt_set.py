"""Prompts as a value: texts in order, their categories, what rewards must know of each, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffpref.core.errors import ConfigError, ShapeError, suggest

__all__ = ["PromptSet"]


@dataclass(frozen=True)
class PromptSet:
    """N prompts of one source.

    Args:
        name: of the set, as a report prints it: ``partiprompts``, ``shapes:unseen:300``, a file's name.
        sha256: of the file; of several files, of their names and digests; without a file, of the prompts, one a line.
            A part of a set (`select`, `unique`) keeps it.
        prompts: N texts, duplicates and all.
        categories: axis, such as ``"category"`` or ``"challenge"`` -> N tuples of labels; mostly one label each, none
            where the source names none.
        metadata: N entries for rewards that read them, such as ``geneval``; None where there are none.
        source: what was asked for: a path or a word.
        licence: of the prompts; empty where nobody said.
        warnings: what a reader should know, one line each, such as a count that is not the published one.

    Raises:
        ShapeError: categories or metadata that are not one for each prompt.
    """

    name: str
    sha256: str
    prompts: tuple[str, ...]
    categories: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    metadata: tuple[Mapping[str, Any], ...] | None = None
    source: str = ""
    licence: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = {**self.categories, **({} if self.metadata is None else {"metadata": self.metadata})}
        for column, values in columns.items():
            if len(values) != len(self.prompts):
                raise ShapeError(f"prompt set '{self.name}': {len(self.prompts)} prompts, {column} of {len(values)}")

    def __len__(self) -> int:
        return len(self.prompts)

    def members(self, axis: str) -> dict[str, tuple[int, ...]]:
        """Return label -> rows of its prompts, labels in the order of their first prompt.

        Raises:
            ConfigError: the set has no such axis.
        """
        if axis not in self.categories:
            known = ", ".join(self.categories) or "none"
            raise ConfigError(
                f"prompt set '{self.name}' has no categories '{axis}'{suggest(axis, self.categories) or ';'}"
                f" known: {known}"
            )
        found: dict[str, list[int]] = {}
        for row, labels in enumerate(self.categories[axis]):
            for label in dict.fromkeys(labels):
                found.setdefault(label, []).append(row)
        return {label: tuple(rows) for label, rows in found.items()}

    def select(self, rows: Sequence[int]) -> PromptSet:
        """Return the set of these rows, in this order."""
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            categories={axis: tuple(labels[row] for row in rows) for axis, labels in self.categories.items()},
            metadata=None if self.metadata is None else tuple(self.metadata[row] for row in rows),
        )

    def unique(self) -> PromptSet:
        """Return the set without the later ones of equal prompts, whose categories and metadata are lost: it warns."""
        first: dict[str, int] = {}
        for row, prompt in enumerate(self.prompts):
            first.setdefault(prompt, row)
        if len(first) == len(self.prompts):
            return self
        lost = f"prompt set '{self.name}': {len(self.prompts) - len(first)} of {len(self.prompts)} prompts come again"
        told = f"{lost} and are left out, with their categories"
        return replace(self.select(list(first.values())), warnings=(*self.warnings, told))

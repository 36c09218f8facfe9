"""Prompt sets as their authors publish them: which files, of whom, under which licence, and how many prompts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from diffpref.core.errors import DataError
from diffpref.core.files import sha256
from diffpref.core.registry import Registry
from diffpref.evaluation.prompt_sets._prompt_set import PromptSet

__all__ = ["Content", "PublishedSet", "published", "registry"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """What a reader found: see `PromptSet` for the fields."""

    prompts: Sequence[str]
    categories: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    metadata: Sequence[Mapping[str, Any]] | None = None


Reader: TypeAlias = Callable[[Sequence[Path]], Content]


@dataclass(frozen=True)
class PublishedSet:
    """A set that is read from files of others.

    Args:
        name: registry name.
        files: names or patterns; each stands for one file, and several are parts of the set.
        origin: where the files come from: an address, or a hub id with its kind.
        licence: of the prompts.
        expected: prompts of the whole set.
        read: the files that are there -> what they hold.
        folder: below the repository, where the files lie in it.
    """

    name: str
    files: tuple[str, ...]
    origin: str
    licence: str
    expected: int
    read: Reader
    folder: str = ""

    def __str__(self) -> str:
        where = f"{self.folder}/" if self.folder else ""
        return f"{', '.join(where + file for file in self.files)} of {self.origin} (licence: {self.licence})"

    def find(self, path: Path) -> list[Path]:
        """Return the files of a folder, or the one file that a path names.

        Raises:
            DataError: nothing is there; the message names the files, whose they are and the licence.
        """
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise DataError(f"{path}: no such file; prompt set '{self.name}' reads {self}")
        found = []
        for pattern in self.files:
            matches = sorted(path.glob(pattern)) or (
                sorted(path.glob(f"{self.folder}/{pattern}")) if self.folder else []
            )
            if not matches:
                raise DataError(f"{path}: no file {pattern}; prompt set '{self.name}' reads {self}")
            found += matches
        return found

    def load(self, path: str) -> PromptSet:
        """Read the set from a file or a folder; a count that is not the published one is warned of.

        Raises:
            DataError: files are missing, are not what they should be, or hold no prompts.
        """
        files = self.find(Path(path).expanduser())
        content = self.read(files)
        if not content.prompts:
            raise DataError(f"{path}: holds no prompts of '{self.name}'")
        for row, prompt in enumerate(content.prompts, start=1):
            if not isinstance(prompt, str) or not prompt.strip():
                raise DataError(f"{path}, prompt {row}: must be a text that is not empty, got {prompt!r}")
        warnings = []
        if len(content.prompts) != self.expected:
            warnings.append(f"prompt set '{self.name}': {len(content.prompts)} prompts, published are {self.expected}")
            logger.warning("%s (%s)", warnings[0], path)
        return PromptSet(
            name=self.name,
            sha256=digest(files),
            prompts=tuple(prompt.strip() for prompt in content.prompts),
            categories={axis: tuple(labels) for axis, labels in content.categories.items()},
            metadata=None if content.metadata is None else tuple(content.metadata),
            source=path,
            licence=self.licence,
            warnings=tuple(warnings),
        )


registry: Registry[PublishedSet] = Registry("prompt set", "diffpref.evaluation.prompt_sets")


def published(
    name: str, *, files: Sequence[str], origin: str, licence: str, expected: int, folder: str = ""
) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader under a name; see `PublishedSet`."""

    def add(read: Reader) -> Reader:
        registry.register(name)(PublishedSet(name, tuple(files), origin, licence, expected, read, folder))
        return read

    return add


def digest(files: Sequence[Path]) -> str:
    """Return the sha256 of a file, or of the names and digests of several."""
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(f"{file.name}:{sha256(file)}\n" for file in files).encode()).hexdigest()

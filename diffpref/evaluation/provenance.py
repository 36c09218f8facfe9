"""How a result came about: what a reader needs to make it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

__all__ = ["LIBRARIES", "Provenance", "library_versions"]

LIBRARIES = ("diffpref", "torch", "diffusers", "transformers", "accelerate", "peft", "open_clip_torch", "numpy")


def library_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of Python and of the given distributions; one that is not installed is said to be so."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a distribution"
    return versions


@dataclass(frozen=True)
class Provenance:
    """Everything that went into a run.

    Args:
        command: what was typed.
        config: the complete config, as YAML.
        seeds: what they seed -> the seed.
        counts: what was counted (prompts, candidates, pairs, updates) -> how many.
        seconds: stage -> wall-clock seconds, in the order in which they ran.
        versions: library -> version.
    """

    command: str = ""
    config: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int | float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=library_versions)

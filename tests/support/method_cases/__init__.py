"""What the support matrix needs of each method of denoisers: one file a method, found by its name.

A file ``tests/support/method_cases/<method>.py`` has ``CASE``: what its recipe changes, and what must lie there
before it trains. ``tests/methods/test_support_matrix.py`` runs it on every family at toy size.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "VIDEOS", "MethodCase", "cases"]

FAMILIES = ("sd", "sdxl", "sd3", "unet3d", "animatediff", "animatediff_sdxl", "svd")
VIDEOS = ("unet3d", "animatediff", "animatediff_sdxl", "svd")


@dataclass(frozen=True)
class MethodCase:
    """One row of the support matrix.

    Args:
        name: registry name of the method.
        changes: to the recipe of a small run on scored pairs, written ``section__name`` or ``section`` as for the
            fixture ``recipe_keys``. ``method`` is the name unless it is here.
        empty: family -> why the method does not run there.
        prepare: given a folder and the keys of the recipe, writes what the run needs besides (other data, a model to
            start from) and returns the keys to train with.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    empty: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, dict[str, Any]], dict[str, Any]] | None = None


def cases() -> dict[str, MethodCase]:
    """Return every case by the name of its method."""
    found = [importlib.import_module(f"{__name__}.{m.name}").CASE for m in pkgutil.iter_modules(__path__)]
    return {case.name: case for case in found}

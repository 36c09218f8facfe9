"""Where each kind of named thing is registered, and what is known of a thing without running it."""

from __future__ import annotations

import importlib
from typing import Any

from diffpref.core.registry import Registry

__all__ = ["REGISTRIES", "description", "registry", "short_forms"]

REGISTRIES = {
    "objectives": "diffpref.objectives",
    "methods": "diffpref.methods",
    "families": "diffpref.models",
    "adapters": "diffpref.models.adapters",
    "rewards": "diffpref.rewards",
}
"""Kind -> the package whose ``registry`` holds it."""


def registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind."""
    found = importlib.import_module(REGISTRIES[kind]).registry
    assert isinstance(found, Registry), f"{REGISTRIES[kind]}.registry is a {type(found).__name__}"
    return found


def description(thing: Any) -> dict[str, str]:
    """Return what an objective or a method says of itself: kind, evidence, source; empty where it says nothing."""
    told = getattr(thing, "spec", thing)
    return {name: str(getattr(told, name, "")) for name in ("kind", "evidence", "source")}


def short_forms(kind: str, name: str) -> list[str]:
    """Return the names that stand for a thing with options: ``hps_v21`` for the reward ``hps``."""
    table = getattr(importlib.import_module(REGISTRIES[kind]), "SHORT_FORMS", {})
    return sorted(short for short, (target, _) in table.items() if target == name)

"""Where each kind of named thing is registered, and what is known of a thing without running it."""

from __future__ import annotations

import importlib
from typing import Any

from diffpref.core.registry import Registry
from diffpref.core.vocabulary import parse, required_groups, required_roles

__all__ = ["REGISTRIES", "defined_for", "description", "needs", "registry", "short_forms"]

REGISTRIES = {
    "objectives": "diffpref.objectives",
    "weightings": "diffpref.objectives.weighting",
    "methods": "diffpref.methods",
    "loops": "diffpref.loops.methods",
    "families": "diffpref.models",
    "adapters": "diffpref.models.adapters",
    "rewards": "diffpref.rewards",
    "captioners": "diffpref.generation.captioners",
    "paraphrasers": "diffpref.generation.paraphrasers",
}
"""Kind -> the module whose ``registry`` holds it."""


def registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind."""
    found = importlib.import_module(REGISTRIES[kind]).registry
    assert isinstance(found, Registry), f"{REGISTRIES[kind]}.registry is a {type(found).__name__}"
    return found


def description(thing: Any) -> dict[str, str]:
    """Return what an objective or a method says of itself: kind, evidence, source; empty where it says nothing."""
    told = getattr(thing, "spec", thing)
    return {name: str(getattr(told, name, "")) for name in ("kind", "evidence", "source")}


def needs(thing: Any) -> list[str]:
    """Return what an objective asks for: roles besides the policy, groups, and data columns; for a method its needs."""
    if not hasattr(thing, "spec"):
        return sorted(thing().needs)  # a method's options all have defaults
    names = thing.spec.tensors
    columns = {str(name) for name in map(parse, names) if name.kind != "model"}
    return sorted({*(required_roles(names) - {"policy"}), *(required_groups(names) - {""}), *columns})


def defined_for(thing: Any) -> list[str]:
    """Return the likelihoods that give every model quantity which an objective names."""
    from diffpref.likelihood import registry as likelihoods

    wanted = {name.quantity for name in map(parse, thing.spec.tensors) if name.kind == "model"}
    return [name for name in likelihoods.names() if wanted <= likelihoods.get(name).provides]


def short_forms(kind: str, name: str) -> list[str]:
    """Return the names that stand for a thing with options: ``clip_score`` for the reward ``clip``."""
    table = getattr(importlib.import_module(REGISTRIES[kind]), "SHORT_FORMS", {})
    return sorted(short for short, (target, _) in table.items() if target == name)

"""What a recipe asks for, checked together before anything heavy is loaded: method, objectives, likelihood, data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffpref.config import Named, Recipe
from diffpref.core.contracts import Method
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import parse
from diffpref.methods import registry as methods
from diffpref.models.adapters import Adapter
from diffpref.models.adapters import registry as adapters
from diffpref.objectives import compose
from diffpref.objectives.compose import Composition

__all__ = ["Plan", "make_plan"]

WATCHED = ("policy_chosen_errors", "reference_chosen_errors", "policy_rejected_errors", "reference_rejected_errors")
RELATIVE = ("chosen_log_ratio", "rejected_log_ratio")


@dataclass(frozen=True)
class Plan:
    """The parts of a training run.

    Args:
        method: what is put before the models.
        composition: the objective terms.
        adapter: what is trained.
        names: the model quantities to compute each step: those of the objectives, and those worth watching.
        roles: the roles that run.
    """

    method: Method
    composition: Composition
    adapter: Adapter
    names: tuple[str, ...]
    roles: frozenset[str]


def make_plan(recipe: Recipe) -> Plan:
    """Build and match the parts.

    Raises:
        ConfigError: an unknown name, a wrong option, or objectives that ask for what the method does not prepare.
    """
    kind: Any = methods.get(recipe.method.name)
    method = recipe.method.validate_with(kind, f"method.{recipe.method.name}")
    terms = method.objectives if recipe.objective is None else [_term(named) for named in recipe.objective]
    composition = compose(terms, "denoising")
    settings = recipe.adapter
    adapter = adapters.get(settings.kind)(settings.rank, settings.alpha, settings.targets)
    known = {"policy", *method.roles}
    if unknown := composition.roles - known:
        raise ConfigError(
            f"objective: needs the role {', '.join(sorted(unknown))}; method '{recipe.method.name}' has"
            f" {', '.join(sorted(known))}"
        )
    if absent := composition.groups - method.needs:
        raise ConfigError(
            f"objective: needs {', '.join(sorted(absent))} samples; method '{recipe.method.name}' prepares"
            f" {', '.join(sorted(method.needs))}"
        )
    if composition.coupling and recipe.training.accumulation > 1:
        raise ConfigError(
            "training.accumulation: must be 1 with an objective that couples the records of a batch, got"
            f" {recipe.training.accumulation}"
        )
    model_names = [name for name in composition.tensors if parse(name).kind == "model"]
    watched = [*WATCHED, *(RELATIVE if "reference" in composition.roles else ())]
    names = dict.fromkeys([*model_names, *(n for n in watched if _runs(n, composition, method))])
    return Plan(method, composition, adapter, tuple(names), composition.roles | {"policy"})


def _term(named: Named) -> tuple[str, dict[str, Any]]:
    return named.name, dict(named.options)


def _runs(name: str, composition: Composition, method: Method) -> bool:
    """Whether a watched quantity costs nothing: its role runs anyway and its group is prepared."""
    parsed = parse(name)
    return parsed.roles <= composition.roles | {"policy"} and parsed.group in method.needs

"""What a recipe asks for, checked together before anything heavy is loaded: method, objectives, likelihood, data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from diffpref.config import Adapter as AdapterSettings
from diffpref.config import Named, Recipe, resolve_roles
from diffpref.core.contracts import Likelihood, Method, RoleSpec
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import GROUPS, parse
from diffpref.likelihood import registry as likelihoods
from diffpref.methods import registry as methods
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter
from diffpref.models.adapters import registry as adapters
from diffpref.objectives import compose
from diffpref.objectives import registry as objectives
from diffpref.objectives.compose import Composition
from diffpref.training.banking import refusals
from diffpref.training.batches import PairBatches
from diffpref.training.trackers import check_trackers

__all__ = ["Plan", "make_plan"]

T = TypeVar("T")

WATCHED = tuple(
    f"{role}_{group}_{quantity}"
    for quantity, roles in (("errors", ("policy", "reference")), ("logps", ("policy",)))
    for group in PairBatches.groups
    for role in roles
)
RELATIVE = tuple(f"{group}_log_ratio" for group in PairBatches.groups)


@dataclass(frozen=True)
class Plan:
    """The parts of a training run.

    Args:
        method: what is put before the models.
        likelihood: the kind that reads the answers of the family.
        composition: the objective terms.
        adapter: what is trained.
        names: the model quantities to compute each step: those of the objectives, and those worth watching.
        roles: the roles that run in a step.
        specs: those besides the policy, and those that the method itself asks: where their weights come from.
        groups: the samples of a record that are put before the models.
        columns: the data columns that a batch must have.
    """

    method: Method
    likelihood: type[Likelihood]
    composition: Composition
    adapter: Adapter
    names: tuple[str, ...]
    roles: frozenset[str]
    specs: Mapping[str, RoleSpec]
    groups: tuple[str, ...]
    columns: frozenset[str]

    @property
    def asked(self) -> list[str]:
        """The roles that run, in the order in which they are asked: the same in every process, the policy last.

        Where networks are spread over processes, two of them asked in another order would trade weights.
        """
        return sorted(self.roles, key=lambda name: (name == "policy", name))

    @property
    def trained(self) -> frozenset[str]:
        """The roles into which gradients flow."""
        return frozenset({"policy", *(name for name, spec in self.specs.items() if spec.trained)})


def make_plan(recipe: Recipe) -> Plan:
    """Build and match the parts.

    Raises:
        ConfigError: every unknown name and wrong option, a line each; else every way in which the parts do not fit.
    """
    found: list[str] = []
    family = _try(found, "model.family", lambda: families.get(recipe.model.family))
    kind = family.likelihood if family else "denoising"
    _try(found, "logging.trackers", lambda: check_trackers(recipe.logging))
    adapter = _try(found, "adapter.", lambda: _adapter(recipe.adapter))
    method = _try(found, "method", lambda: _method(recipe.method))
    terms: Any = [(named.name, named.options) for named in recipe.objective or ()] or (method and method.objectives)
    composition = _try(found, "objective", lambda: compose(terms, kind)) if terms else None
    declared: Mapping[str, RoleSpec] = method.roles if method else {}
    specs = _try(found, "roles.", lambda: resolve_roles(declared, recipe.roles))
    if family is None or adapter is None or method is None or composition is None or specs is None:
        raise ConfigError("\n".join(found))
    likelihood = likelihoods.get(kind)
    found += _misfits(recipe, method, composition, kind)
    if found := [*found, *refusals(recipe.bank, specs, composition, likelihood)]:
        raise ConfigError("\n".join(found))
    model_names = [name for name in composition.tensors if parse(name).kind == "model"]
    watched = [*WATCHED, *(RELATIVE if "reference" in composition.roles else ())]
    names = dict.fromkeys([*model_names, *(n for n in watched if _costs_nothing(n, composition, method))])
    return Plan(
        method,
        likelihood,
        composition,
        adapter,
        tuple(names),
        composition.roles | {"policy"},
        {name: spec for name, spec in specs.items() if name in composition.roles or spec.in_prepare},
        tuple(group for group in PairBatches.groups if group in method.needs),
        frozenset(composition.tensors) - set(names) | {name for name in method.needs if name not in GROUPS},
    )


def _try(found: list[str], path: str, make: Callable[[], T]) -> T | None:
    """Return what ``make`` makes, or None after adding the lines of its `ConfigError`, each with its dotted path."""
    try:
        return make()
    except ConfigError as error:
        found += [line if line.startswith(path) else f"{path}: {line}" for line in str(error).splitlines()]
        return None


def _adapter(settings: AdapterSettings) -> Adapter:
    try:
        kind = adapters.get(settings.kind)
    except ConfigError as error:
        raise ConfigError(f"adapter.kind: {error}") from None
    return kind(settings.rank, settings.alpha, settings.targets, settings.start, settings.dora)


def _method(named: Named) -> Method:
    if named.name not in methods and named.name in objectives:
        raise ConfigError(
            f"'{named.name}' is an objective, not a method; put it under objective. Methods: {', '.join(methods)}"
        )
    kind: Any = methods.get(named.name)
    return named.validate_with(kind, f"method.{named.name}")


def _misfits(recipe: Recipe, method: Method, composition: Composition, kind: str) -> Iterator[str]:
    """Yield a line for each thing that one part asks for and the others do not give."""
    name = recipe.method.name
    known = {"policy", *method.roles}
    if unknown := composition.roles - known:
        yield f"objective: needs the role {_list(unknown)}; method '{name}' has {_list(known)}"
    if absent := composition.groups - method.needs:
        yield f"objective: needs {_list(absent)} samples; method '{name}' prepares {_list(method.needs)}"
    if absent := (method.needs & frozenset(GROUPS)) - frozenset(PairBatches.groups):
        yield f"method: '{name}' needs {_list(absent)} samples; preference pairs hold {_list(PairBatches.groups)}"
    asked = composition.roles | {role for role, spec in method.roles.items() if spec.in_prepare}
    for role in sorted(recipe.roles.keys() - asked):
        yield f"roles.{role}: neither the objective nor method '{name}' asks anything of it; leave it out"
    if recipe.guards.winner_error in ("stop", "roll_back") and "reference" not in composition.roles:
        yield f"guards.winner_error: {recipe.guards.winner_error} needs a reference, which the objective does not ask"
    if (prepared := getattr(method, "likelihood", None)) != kind:
        told = f"prepares rows for the likelihood '{prepared}'" if prepared else "does not say for which likelihood"
        yield f"method: '{name}' {told}; family '{recipe.model.family}' is read by '{kind}'"
    provided = likelihoods.get(kind).provides
    model_names = [parsed for parsed in map(parse, composition.tensors) if parsed.kind == "model"]
    if lacking := [str(n) for n in model_names if n.form not in provided]:
        yield f"objective: needs {_list(lacking)}; the likelihood '{kind}' of this family gives {_list(provided)}"


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _costs_nothing(name: str, composition: Composition, method: Method) -> bool:
    """Whether a quantity worth watching needs no more forwards: its roles run anyway and its group is prepared."""
    parsed = parse(name)
    return parsed.roles <= composition.roles | {"policy"} and parsed.group in method.needs

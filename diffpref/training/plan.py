"""What a recipe asks for, checked together before anything heavy is loaded: method, objectives, likelihood, data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from diffpref.config import Adapter as AdapterSettings
from diffpref.config import Data, Named, Recipe, resolve_roles
from diffpref.core.contracts import CollectingMethod, Likelihood, Method, RoleSpec
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import DRAWN, FULL, GROUPS, Name, parse
from diffpref.data import COMPANIONS, VIEWS, view_of
from diffpref.data.items import Value
from diffpref.likelihood import registry as likelihoods
from diffpref.methods import registry as methods
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter
from diffpref.models.adapters import registry as adapters
from diffpref.models.base import ModelFamily
from diffpref.objectives import compose
from diffpref.objectives import registry as objectives
from diffpref.objectives.compose import Composition
from diffpref.rewards import check_named
from diffpref.training.banking import refusals
from diffpref.training.trackers import check_trackers

__all__ = ["Plan", "make_plan"]

T = TypeVar("T")

EVERY_GROUP = ("", *GROUPS)
OF_CLIPS = ("num_frames", "frame_stride", "fps", "random_start")
"""Fields of the section ``data`` that say how clips are cut."""
WATCHED = (("policy", "errors"), ("reference", "errors"), ("policy", "logps"))
"""Role and quantity of what is looked at where it costs nothing."""


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
        view: of the data, a name of `diffpref.data.VIEWS`.
        groups: the samples of a record that are put before the models.
        taken: those of them that the data hold; the method makes the others.
        columns: the data columns that a batch must have.
    """

    method: Method
    likelihood: type[Likelihood]
    composition: Composition
    adapter: Adapter
    names: tuple[str, ...]
    roles: frozenset[str]
    specs: Mapping[str, RoleSpec]
    view: str
    groups: tuple[str, ...]
    taken: tuple[str, ...]
    columns: frozenset[str]

    @property
    def asked(self) -> list[str]:
        """The roles that run, in the order in which they are asked: the same in every process, the policy last.

        Where networks are spread over processes, two of them asked in another order would trade weights.
        """
        return sorted(self.roles, key=lambda name: (name == "policy", name))

    @property
    def collecting(self) -> CollectingMethod | None:
        """The method, if it makes part of its data while it trains."""
        return self.method if isinstance(self.method, CollectingMethod) else None

    @property
    def rewards(self) -> tuple[Named, ...]:
        """What scores the samples that the method makes."""
        return tuple(getattr(self.method, "rewards", ()))

    @property
    def wanted(self) -> dict[str, frozenset[str]]:
        """Role -> the quantities that it is asked for, with their units."""
        model = [name for name in map(parse, self.names) if name.kind == "model"]
        return {role: frozenset(name.form for name in model if role in name.roles) for role in self.roles}

    def settled(self, columns: Sequence[Mapping[str, Value]]) -> Plan:
        """Return the plan with whatever its method measures on the data, given the columns of every item."""
        settle = getattr(self.method, "settle", None)
        return self if settle is None else replace(self, method=settle(columns))

    @property
    def made(self) -> frozenset[str]:
        """The groups and columns that the method makes itself."""
        return _made(self.method)

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
    likelihood, taken = likelihoods.get(kind), _groups(method, composition)
    groups = (*taken, *sorted((composition.groups & _made(method)) - set(taken)))
    found += _misfits(recipe, method, composition, family)
    view = _try(found, "objective", lambda: view_of(taken)) or ""
    if recipe.data.positive_share is not None and view != "points":
        found.append(f"data.positive_share: is for single labelled samples, and these parts take {view or 'others'}")
    if recipe.data.rarity_bins is not None and view != "pairs":
        found.append(f"data.rarity_bins: is for pairs, and these parts take {view or 'others'}")
    rewards = getattr(method, "rewards", ())
    found += check_named(rewards, f"method.{recipe.method.name}.rewards")
    if found := [*found, *refusals(recipe.bank, specs, composition, likelihood)]:
        raise ConfigError("\n".join(found))
    provided = _provided(likelihood, family, method)
    served = [str(name) for name in _asked(composition) if name.form in provided and _is_served(name)]
    watched = [name for name in _watched(groups, composition) if parse(name).form in provided]
    demanded = {name for name in composition.tensors if parse(name).quantity not in DRAWN}
    demanded |= {name for name in method.needs if name not in EVERY_GROUP}
    return Plan(
        method,
        likelihood,
        composition,
        adapter,
        tuple(dict.fromkeys([*served, *watched])),
        composition.roles | {"policy"},
        {name: spec for name, spec in specs.items() if name in composition.roles or spec.in_prepare},
        view,
        groups,
        taken,
        frozenset(demanded) - set(served) - _made(method),
    )


def _asked(composition: Composition) -> list[Name]:
    return [parse(name) for name in (*composition.tensors, *composition.optional)]


def _is_served(name: Name) -> bool:
    """Whether a likelihood is asked for a name: what a model computes, and what is read off a group's rows."""
    read_off = name.quantity in ("length", "target", "noisy") or (name.quantity == "mask" and name.unit != "")
    return name.kind == "model" or read_off


def _groups(method: Method, composition: Composition) -> tuple[str, ...]:
    """Return the groups that the data must hold: those of the method, and of the objective as it accepts."""
    asked = method.needs | (composition.groups & (_accepts(method) - _made(method)))
    order = [group for held in VIEWS.values() for group in held] + list(COMPANIONS)
    return tuple(sorted((g for g in asked if g in EVERY_GROUP), key=lambda g: (g not in order, [*order, g].index(g))))


def _accepts(method: Method) -> frozenset[str]:
    """Return every group that a method can prepare."""
    return frozenset(method.needs | frozenset(getattr(method, "accepts", ())))


def _made(method: Method) -> frozenset[str]:
    """Return the groups and columns that a method makes itself."""
    return frozenset(getattr(method, "makes", ()))


def _provided(likelihood: type[Likelihood], family: type[ModelFamily], method: Method) -> frozenset[str]:
    """Return the quantities, with their units, that a run can ask for."""
    return (likelihood.provides - family.lacks.keys()) | frozenset(getattr(method, "gives", ()))


def _watched(groups: tuple[str, ...], composition: Composition) -> Iterator[str]:
    """Yield the quantities worth watching that need no more forwards: their roles run anyway."""
    shown, runs = [group for group in groups if group not in COMPANIONS], composition.roles | {"policy"}
    for quantity in dict.fromkeys(quantity for _, quantity in WATCHED):
        for group in shown:
            for role in (role for role, what in WATCHED if what == quantity and role in runs):
                yield "_".join(part for part in (role, group, quantity) if part)
    if "reference" in composition.roles:
        yield from ("_".join(part for part in (group, "log_ratio") if part) for group in shown)


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


def _misfits(recipe: Recipe, method: Method, composition: Composition, family: type[ModelFamily]) -> Iterator[str]:
    """Yield a line for each thing that one part asks for and the others do not give."""
    name, kind = recipe.method.name, family.likelihood
    known = {"policy", *method.roles}
    if unknown := composition.roles - known:
        yield f"objective: needs the role {_list(unknown)}; method '{name}' has {_list(known)}"
    if absent := composition.groups - _accepts(method) - _made(method):
        prepared = (_accepts(method) | _made(method)) & {*EVERY_GROUP}
        yield f"objective: needs {_list(absent)} samples; method '{name}' prepares {_list(prepared)}"
    asked = composition.roles | {role for role, spec in method.roles.items() if spec.in_prepare}
    for role in sorted(recipe.roles.keys() - asked):
        yield f"roles.{role}: neither the objective nor method '{name}' asks anything of it; leave it out"
    if recipe.guards.winner_error in ("stop", "roll_back") and "reference" not in composition.roles:
        yield f"guards.winner_error: {recipe.guards.winner_error} needs a reference, which the objective does not ask"
    if recipe.bank.slots and isinstance(method, CollectingMethod):
        yield (
            f"bank.slots: method '{name}' draws new samples while it trains, so that no role is asked the same twice;"
            " set bank.slots to 0"
        )
    if (read_by := getattr(method, "likelihood", None)) != kind:
        told = f"prepares rows for the likelihood '{read_by}'" if read_by else "does not say for which likelihood"
        yield f"method: '{name}' {told}; family '{recipe.model.family}' is read by '{kind}'"
    draws, served = getattr(method, "draws", 1), [n for n in map(parse, composition.tensors) if n.kind == "model"]
    if draws > 1 and (whole := [str(n) for n in served if n.quantity in FULL]):
        yield f"method.{name}.draws: must be 1, got {draws}: the objective needs whole answers, {_list(whole)}"
    if family.samples != "videos":
        for field in (f for f in OF_CLIPS if getattr(recipe.data, f) != Data.model_fields[f].default):
            yield f"data.{field}: is of clips, which family '{recipe.model.family}' does not take; leave it out"
    if recipe.validation.every and family.samples not in ("images", "videos"):
        yield f"validation.every: draws pictures or clips, which family '{recipe.model.family}' does not; set it to 0"
    if recipe.validation.every and getattr(family, "takes_opening", False):
        yield f"validation.every: has prompts, and '{recipe.model.family}' animates pictures; set it to 0"
    yield from getattr(method, "misfits", lambda recipe: ())(recipe)
    likelihood = likelihoods.get(kind)
    if recipe.training.max_rows and (kind != "denoising" or any(n.form not in likelihood.from_raw for n in served)):
        yield (
            f"training.max_rows: cuts what denoisers are asked, where the objective reads a few numbers a row; here"
            f" '{kind}' is asked {_list(map(str, served))}. Leave it out"
        )
    lacks, provided = {**likelihood.lacks, **family.lacks}, _provided(likelihood, family, method)
    lacking = [n for n in map(parse, composition.tensors) if _is_served(n) and n.form not in provided]
    for why in dict.fromkeys(lacks.get(n.form, "") for n in lacking):
        names = _list(str(n) for n in lacking if lacks.get(n.form, "") == why)
        gives = f"the likelihood '{kind}' of this family gives {_list(provided)}"
        yield f"objective: needs {names}; {why or gives}"


def _list(names: Any) -> str:
    return ", ".join(sorted(name or "single" for name in names))

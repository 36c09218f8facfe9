"""One objective with its options, and what a recipe adds to it: a factor, weights, other margins, other groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from diffpref.core.annotations import Number
from diffpref.core.contracts import Tensors, Terms
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.vocabulary import GROUPS, parse
from diffpref.objectives.base import RESERVED, ObjectiveSpec
from diffpref.objectives.reshaping import OPTIONS as RESHAPING
from diffpref.objectives.reshaping import Reshaping, read_reshaping
from diffpref.objectives.weighting import Weighting, read_weightings

__all__ = ["Term", "read_term"]

T = TypeVar("T")
_COEFFICIENT = TypeAdapter(Number, config=ConfigDict(strict=True))


@dataclass(frozen=True)
class Term:
    """One objective with valid options.

    Args:
        coefficient: the factor before its reduced loss.
        spec: of the objective.
        options: its hyper-parameters.
        weighting: what multiplies its losses.
        reshaping: what changes its margins.
        groups: group that the objective names -> group that takes its place.
    """

    coefficient: float
    spec: ObjectiveSpec
    options: BaseModel
    weighting: tuple[Weighting, ...] = ()
    reshaping: Reshaping = field(default_factory=Reshaping)
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The vocabulary names that must be there."""
        own = (*self.spec.tensors, *self.reshaping.tensors)
        weighed = (name for one in self.weighting for name in one.tensors)
        return tuple(dict.fromkeys([*map(self._named, own), *weighed]))

    @property
    def optional(self) -> tuple[str, ...]:
        """The data columns that are used when they are there."""
        return tuple(dict.fromkeys([*map(self._named, self.spec.optional), *self._weighed_optional()]))

    def _weighed_optional(self) -> list[str]:
        return [name for one in self.weighting for name in one.spec.optional]

    def _named(self, own: str) -> str:
        """Return the name of the tensor that stands for one of the objective's."""
        parsed = parse(own)
        if parsed.group not in self.groups:
            return own
        parts = (parsed.role, self.groups[parsed.group], parsed.unit, parsed.quantity)
        return "_".join(part for part in parts if part)

    @property
    def effective(self) -> dict[str, Any]:
        """Every option written out; what is not asked for stays out."""
        weighed = {"weighting": [one.effective for one in self.weighting]} if self.weighting else {}
        groups = {"groups": dict(self.groups)} if self.groups else {}
        return {
            "coefficient": self.coefficient,
            **self.options.model_dump(),
            **weighed,
            **self.reshaping.effective,
            **groups,
        }

    def initial_state(self) -> dict[str, Tensor]:
        """Return the running statistics before the first update: the objective's own, and with a dot the additions'."""
        own = {} if self.spec.init is None else self.spec.init()
        weighed = {
            f"weighting{place}.{name}": tensor
            for place, one in enumerate(self.weighting)
            if one.spec.init is not None
            for name, tensor in one.spec.init().items()
        }
        return {**own, **self.reshaping.initial_state(), **weighed}

    def __call__(self, tensors: Tensors, state: Tensors | None = None) -> Terms:
        """Return the losses with all that the term adds; see `diffpref.objectives.compose.Composition`."""
        named = {own: tensors[name] for own, name in self._present(tensors).items()} if self.groups else tensors
        own = None if state is None else {name: value for name, value in state.items() if "." not in name}
        seen, options, after, metrics = self.reshaping(named, self.options, state)
        value = self.spec.evaluate(seen, options, own)
        terms = value if isinstance(value, Terms) else Terms(value)
        losses, weights = terms.losses, terms.weights
        for place, one in enumerate(self.weighting):
            prefix = f"weighting{place}."
            kept = None if state is None else {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
            factor, statistics = one(tensors, kept)
            factor = factor.to(losses.dtype)
            if one.normalize:
                weights = factor if weights is None else weights * factor
            else:
                losses = losses * factor
            metrics[f"weight_{one.spec.name}"] = factor
            after |= {prefix + name: value for name, value in (statistics or {}).items()}
        metrics = {f"{self.spec.name}/{name}": metric.detach() for name, metric in metrics.items()}
        states = {**(terms.state or {}), **after}
        return Terms(losses, weights, states or None, {**terms.metrics, **metrics})

    def _present(self, tensors: Tensors) -> dict[str, str]:
        """Return name in the objective -> name in the batch, of what is there; nothing else is to be seen."""
        wanted = (*self.spec.tensors, *self.spec.optional, *self.reshaping.tensors)
        masks = [f"{group}_{unit}_mask" for group in ("chosen", "rejected") for unit in ("token", "segment")]
        return {own: self._named(own) for own in (*wanted, *masks) if self._named(own) in tensors}


def read_term(spec: ObjectiveSpec, values: Mapping[str, Any], likelihood: str, path: str) -> Term:
    """Validate an objective's options and additions.

    Raises:
        ConfigError: everything that is wrong, a line each.
    """
    errors: list[str] = []
    own = {name: value for name, value in values.items() if name not in RESERVED}
    changes = {name: value for name, value in values.items() if name in RESHAPING}
    coefficient = _try(errors, lambda: _coefficient(values.get("coefficient", 1.0), path))
    options = _try(errors, lambda: spec.read_options(own, likelihood=likelihood, path=path))
    weighed = _try(errors, lambda: read_weightings(values.get("weighting") or [], likelihood, f"{path}.weighting"))
    groups = _try(errors, lambda: _groups(values.get("groups") or {}, spec, f"{path}.groups"))
    reshaping = None
    if options is not None:
        reshaping = _try(errors, lambda: read_reshaping(spec, options, changes, path))
    if coefficient is None or options is None or weighed is None or groups is None or reshaping is None:
        raise ConfigError("\n".join(errors))
    return Term(coefficient, spec, options, weighed, reshaping, groups)


def _try(errors: list[str], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ConfigError as error:
        errors.append(str(error))
        return None


def _coefficient(value: Any, path: str) -> float:
    try:
        return _COEFFICIENT.validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{path}.coefficient: must be a finite number, got {error.errors()[0]['input']!r}") from None


def _groups(value: Any, spec: ObjectiveSpec, path: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be {{group: group}}, such as {{rejected: mismatched}}, got {value!r}")
    own = sorted({parse(name).group for name in (*spec.tensors, *spec.optional)} - {""})
    errors = []
    for group, other in value.items():
        if group not in own:
            errors.append(f"{path}.{group}: '{spec.name}' has no such group; it has {', '.join(own) or 'none'}")
        elif other not in GROUPS:
            hint = suggest(str(other), GROUPS) or ";"
            errors.append(f"{path}.{group}: unknown group {other!r}{hint} known: {', '.join(GROUPS)}")
        elif (group == "list") != (other == "list"):
            errors.append(f"{path}.{group}: a list cannot stand for single samples, nor they for it; got {other!r}")
    if errors:
        raise ConfigError("\n".join(errors))
    return {str(group): str(other) for group, other in value.items() if group != other}

"""What makes a plain function an objective: the decorator that reads its signature, and the registry.

An objective is a pure function of tensors named by `diffpref.core.vocabulary`. Every other parameter is a
hyper-parameter, and its annotation becomes a validated option. Nothing else has to be declared.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import (
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ValidationError
from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.core.registry import Registry
from diffpref.core.vocabulary import parse
from diffpref.objectives.checks import check_shapes, promote
from diffpref.objectives.options import options_error, options_model

__all__ = ["Evidence", "Kind", "Objective", "ObjectiveSpec", "Sign", "objective", "registry"]

Evidence = Literal["official", "paper", "secondary", "memory", "ours"]
"""Where the formula was read: the official code, the paper, someone's account, general knowledge, our own design."""
Kind = Literal["pairwise", "pointwise", "listwise", "token", "step", "supervised"]
Sign = Literal["-", "+"]
"""How a loss moves with a tensor, at every point: ``"-"`` it never rises when the tensor does, ``"+"`` never falls."""

P = ParamSpec("P")
R = TypeVar("R", bound="Tensor | Terms", covariant=True)


@dataclass(frozen=True, eq=False)
class ObjectiveSpec:
    """What is known of an objective without calling it.

    Args:
        name: canonical registry name.
        kind: what it compares.
        source: paper or repository, with the equation or function.
        evidence: how far the source was read.
        coupling: ``"batch"`` when a loss depends on the other records of the batch, so that accumulation must replay.
        tensors: the tensors it cannot do without, by vocabulary name.
        optional: data columns that it uses when the batch has them.
        defaults: hyper-parameter -> (annotation, default); the default is a `diffpref.core.annotations.Scale` where it
            depends on the likelihood, ``inspect.Parameter.empty`` where there is none.
        function: the undecorated function.
        init: makes the running statistics that the function's parameter ``state`` starts from.
        published: the likelihoods with which its source used it; it is defined wherever its tensors are.
        signs: how the loss moves with each trained tensor; those left out have no fixed sign.
        stops: trained tensors whose gradient is cut where they enter as a constant, so that the gradient is not that of
            finite differences; ``()`` for most.
        domain: tensor -> (lowest, highest) value for which the formula is meant, both allowed; outside of it the
            objective raises, or stays finite.
        same_as: the objective whose function this is with other constants, ``""`` where it is a function of its own.
        coupled_by: option -> the values with which records are coupled; with others each loss is a record's own.
    """

    name: str
    kind: Kind
    source: str
    evidence: Evidence
    coupling: Literal["batch"] | None
    tensors: tuple[str, ...]
    optional: tuple[str, ...]
    defaults: Mapping[str, tuple[Any, Any]]
    function: Callable[..., Tensor | Terms]
    init: Callable[[], dict[str, Tensor]] | None
    published: tuple[str, ...]
    signs: Mapping[str, Sign]
    stops: tuple[str, ...]
    domain: Mapping[str, tuple[float, float]]
    same_as: str = ""
    coupled_by: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def coupling_of(self, options: BaseModel) -> Literal["batch"] | None:
        """Return ``"batch"`` when a loss depends on the other records of the batch under these options."""
        coupled = all(getattr(options, option) in values for option, values in self.coupled_by.items())
        return self.coupling if coupled else None

    @property
    def trained(self) -> tuple[str, ...]:
        """The tensors into which gradient may flow."""
        return tuple(name for name in self.tensors if parse(name).trained)

    @functools.cached_property
    def options(self) -> type[BaseModel]:
        """The hyper-parameters as a frozen pydantic model, with the defaults for log-likelihoods in nats."""
        return options_model(self.name, self.defaults, "tokens")

    @functools.cached_property
    def _denoising_options(self) -> type[BaseModel]:
        return options_model(self.name, self.defaults, "denoising")

    def options_for(self, likelihood: str) -> type[BaseModel]:
        """Return the pydantic model of the hyper-parameters with the defaults of a likelihood."""
        return self._denoising_options if likelihood == "denoising" else self.options

    def read_options(self, values: Mapping[str, Any], *, likelihood: str = "tokens", path: str = "") -> BaseModel:
        """Validate hyper-parameters.

        Args:
            values: as given by the user.
            likelihood: whose defaults hold.
            path: what the messages put before the option's name: ``"objective[0].dpo"``.

        Raises:
            ConfigError: all that is wrong, a line each: ``objective[0].dpo.beta: must be > 0, got -1``.
        """
        model = self.options_for(likelihood)
        try:
            return model.model_validate(dict(values))
        except ValidationError as error:
            raise options_error(error, path or self.name, list(model.model_fields)) from None

    def evaluate(self, tensors: Mapping[str, Tensor], options: BaseModel, state: Any = None) -> Tensor | Terms:
        """Call the function on checked and promoted tensors with options that are valid already.

        Raises:
            ConfigError: a tensor is missing.
            ShapeError: a tensor has not the shape that its name promises, or two disagree.
        """
        missing = [name for name in self.tensors if name not in tensors]
        if missing:
            raise ConfigError(f"objective '{self.name}' needs {', '.join(missing)}; got {', '.join(tensors) or 'none'}")
        given = {name: tensors[name] for name in (*self.tensors, *self.optional) if tensors.get(name) is not None}
        arguments: dict[str, Any] = dict(promote(check_shapes(self.name, given)))
        arguments.update({name: getattr(options, name) for name in self.defaults})
        if self.init is not None:
            arguments["state"] = self.init() if state is None else state
        return self.function(**arguments)


class Objective(Protocol, Generic[P, R]):
    """A decorated function: called like the plain one, and with its specification attached."""

    spec: ObjectiveSpec
    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return (B,) losses or `Terms`."""
        ...


registry: Registry[Objective[..., Tensor | Terms]] = Registry("objective", "diffpref.objectives")


def objective(
    name: str,
    *,
    kind: Kind,
    source: str,
    evidence: Evidence,
    coupling: Literal["batch"] | None = None,
    init: Callable[[], dict[str, Tensor]] | None = None,
    aliases: tuple[str, ...] = (),
    published: tuple[str, ...] = ("tokens",),
    signs: Mapping[str, Sign] | None = None,
    stops: tuple[str, ...] = (),
    domain: Mapping[str, tuple[float, float]] | None = None,
    same_as: str = "",
    coupled_by: Mapping[str, tuple[Any, ...]] | None = None,
) -> Callable[[Callable[P, R]], Objective[P, R]]:
    """Register a function as an objective and put the checks that all share before it.

    A call checks shapes, computes in float64 where the model quantities are float64 and in float32 otherwise, and lets
    gradient flow only into what the policy or a peer computed. Defaults made with `diffpref.core.annotations.scale`
    have in a direct call the value for log-likelihoods in nats; `diffpref.objectives.compose` is told the likelihood.

    Args:
        name: canonical name.
        kind: what it compares.
        source: paper or repository, with the equation or function.
        evidence: how far the source was read.
        coupling: ``"batch"`` when a loss depends on other records of the batch.
        init: makes the running statistics passed as ``state``; the function returns the new ones in ``Terms.state``.
        aliases: other names that recipes may use.
        published: the likelihoods with which the source used it, of ``"tokens"``, ``"denoising"``, ``"steps"`` and
            ``"score"``.
        signs: trained tensor -> how the loss moves with it where labels are certain, ``"-"`` or ``"+"``; one left
            out has no fixed sign. Not given: ``"-"`` for the chosen sample, ``"+"`` for the rejected one.
        stops: trained tensors that enter as a constant too (stop-gradient).
        domain: tensor -> (lowest, highest) for which the formula is meant; outside it must raise or stay finite.
        same_as: the objective whose function this is with other constants.
        coupled_by: option -> the values with which ``coupling`` holds; not given: always.

    Raises:
        ConfigError: a parameter is not keyword-only, a tensor's name does not parse, the name is taken, or what is said
            of a tensor is said of one that the function does not have.
    """

    def decorate(function: Callable[P, R]) -> Objective[P, R]:
        tensors, optional, defaults = _read_signature(name, function, init is not None)
        trained = tuple(tensor for tensor in tensors if parse(tensor).trained)
        directions = _default_signs(trained) if signs is None else dict(signs)
        if strangers := ({*directions, *stops} - {*trained}) | ({*(domain or {})} - {*tensors, *optional}):
            raise ConfigError(
                f"objective '{name}': signs, stops or domain name {', '.join(sorted(strangers))}; signs and stops are"
                f" of {', '.join(trained) or 'nothing'}, domain of the function's tensors"
            )
        spec = ObjectiveSpec(
            name,
            kind,
            source,
            evidence,
            coupling,
            tensors,
            optional,
            defaults,
            function,
            init,
            published,
            directions,
            stops,
            dict(domain or {}),
            same_as,
            dict(coupled_by or {}),
        )

        @functools.wraps(function)
        def call(**arguments: Any) -> Any:
            known = {*tensors, *optional, "state"}
            values = {key: value for key, value in arguments.items() if key not in known}
            return spec.evaluate(
                {key: value for key, value in arguments.items() if key in known and value is not None},
                spec.read_options(values),
                arguments.get("state"),
            )

        decorated = cast("Objective[P, R]", call)
        decorated.spec = spec
        registry.register(name, aliases=aliases)(cast("Any", decorated))
        return decorated

    return decorate


def _default_signs(trained: tuple[str, ...]) -> dict[str, Sign]:
    """A better chosen sample never raises the loss, a better rejected one never lowers it."""
    signs: dict[str, Sign] = {}
    for name in trained:
        parsed = parse(name)
        if parsed.quantity in ("logps", "log_ratio") and parsed.group in ("chosen", "rejected"):
            signs[name] = "-" if parsed.group == "chosen" else "+"
    return signs


def _read_signature(
    name: str, function: Callable[..., Any], has_state: bool
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[Any, Any]]]:
    """Return required tensors, optional tensors, and option -> (annotation, default)."""
    hints = get_type_hints(function, include_extras=True)
    tensors, optional, defaults = [], [], {}
    for parameter in inspect.signature(function).parameters.values():
        where = f"objective '{name}': parameter '{parameter.name}'"
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(f"{where} must be keyword-only")
        if parameter.name not in hints:
            raise ConfigError(f"{where} needs an annotation: Tensor, or the type of a hyper-parameter")
        hint = hints[parameter.name]
        members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
        if parameter.name == "state":
            if not has_state:
                raise ConfigError(f"{where} holds running statistics; say with init= what they start from")
        elif hint is Tensor:
            tensors.append(str(parse(parameter.name)))
        elif Tensor in members:
            if parse(parameter.name).kind == "model":
                raise ConfigError(f"{where} is computed by a model and cannot be optional")
            optional.append(parameter.name)
        else:
            defaults[parameter.name] = (hint, parameter.default)
    if not tensors:
        raise ConfigError(f"objective '{name}' names no tensor")
    return tuple(tensors), tuple(optional), defaults

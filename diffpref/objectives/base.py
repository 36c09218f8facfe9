"""What makes a plain function an objective: the decorator that reads its signature, and the registry.

An objective is a pure function of tensors named by `diffpref.core.vocabulary`. Every other parameter is a
hyper-parameter, and its annotation becomes a validated option. Nothing else has to be declared.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import Tensor

from diffpref.core.annotations import resolve
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError, ShapeError, suggest
from diffpref.core.registry import Registry
from diffpref.core.vocabulary import Name, parse

__all__ = ["Evidence", "Kind", "Objective", "ObjectiveSpec", "objective", "registry"]

Evidence = Literal["official", "paper", "secondary", "memory", "ours"]
"""Where the formula was read: the official code, the paper, someone's account, general knowledge, our own design."""
Kind = Literal["pairwise", "pointwise", "listwise", "token", "step", "supervised"]

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

    @functools.cached_property
    def options(self) -> type[BaseModel]:
        """The hyper-parameters as a frozen pydantic model, with the defaults for log-likelihoods in nats."""
        return _options_model(self, "tokens")

    @functools.cached_property
    def _denoising_options(self) -> type[BaseModel]:
        return _options_model(self, "denoising")

    def options_for(self, likelihood: str) -> type[BaseModel]:
        """Return the pydantic model of the hyper-parameters with the defaults of a likelihood."""
        return self._denoising_options if likelihood == "denoising" else self.options

    def read_options(self, values: Mapping[str, Any], *, likelihood: str = "tokens", path: str = "") -> BaseModel:
        """Validate hyper-parameters.

        Args:
            values: as given by the user.
            likelihood: whose defaults hold.
            path: what the messages put before the option's name: ``"objective.0.dpo"``.

        Raises:
            ConfigError: all that is wrong, a line each: ``objective.0.dpo.beta: must be > 0, got -1``.
        """
        model = self.options_for(likelihood)
        try:
            return model.model_validate(dict(values))
        except ValidationError as error:
            lines = [_message(e, path or self.name, list(model.model_fields)) for e in error.errors()]
            raise ConfigError("\n".join(lines)) from None

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
        arguments: dict[str, Any] = dict(_promote(_check_shapes(self.name, given)))
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
) -> Callable[[Callable[P, R]], Objective[P, R]]:
    """Register a function as an objective and put the checks that all share before it.

    A call checks shapes, computes in float64 where the model quantities are float64 and in float32 otherwise, and lets
    gradient flow only into what the policy computed. Defaults made with `diffpref.core.annotations.scale` take their
    value for log-likelihoods in nats in a direct call; `diffpref.objectives.compose` knows the likelihood and takes its.

    Args:
        name: canonical name.
        kind: what it compares.
        source: paper or repository, with the equation or function.
        evidence: how far the source was read.
        coupling: ``"batch"`` when a loss depends on other records of the batch.
        init: makes the running statistics passed as ``state``; the function returns the new ones in ``Terms.state``.
        aliases: other names that recipes may use.

    Raises:
        ConfigError: a parameter is not keyword-only, a tensor's name does not parse, or the name is taken.
    """

    def decorate(function: Callable[P, R]) -> Objective[P, R]:
        tensors, optional, defaults = _read_signature(name, function, init is not None)
        spec = ObjectiveSpec(name, kind, source, evidence, coupling, tensors, optional, defaults, function, init)

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


def _options_model(spec: ObjectiveSpec, likelihood: str) -> type[BaseModel]:
    fields: dict[str, Any] = {
        option: (hint, ... if default is inspect.Parameter.empty else resolve(default, likelihood))
        for option, (hint, default) in spec.defaults.items()
    }
    config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    return create_model(f"{spec.name}_options", __config__=config, **fields)


_LIMITS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


def _message(error: Any, path: str, known: list[str]) -> str:
    """Return one line for one pydantic error: the dotted path, what was expected, what was given."""
    where = ".".join([path, *(str(part) for part in error["loc"])])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return (
            f"{where}: unknown option{suggest(str(error['loc'][-1]), known) or ';'} known: {', '.join(known) or 'none'}"
        )
    if kind == "missing":
        return f"{where}: is required"
    if kind in _LIMITS:
        sign, limit = _LIMITS[kind]
        return f"{where}: must be {sign} {error['ctx'][limit]:g}, got {given}"
    if kind == "finite_number":
        return f"{where}: must be finite, got {given}"
    expected = {
        "float_type": "must be a number",
        "int_type": "must be a whole number",
        "bool_type": "must be true or false",
    }
    text = expected.get(kind, error["msg"].replace("Input should be", "must be"))
    return f"{where}: {text}, got {given!r}"


def _shape_class(name: Name) -> tuple[object, ...]:
    """Names of one class have equal shapes; sequences of tokens may differ in length between chosen and rejected."""
    return (name.group == "list", name.unit, name.group if name.unit == "token" else "")


def _check_shapes(name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    parsed = {key: parse(key) for key in tensors}
    first = next(iter(tensors))
    expected: dict[tuple[object, ...], str] = {}
    for key, tensor in tensors.items():
        where = f"objective '{name}': {key} has shape {tuple(tensor.shape)}"
        if tensor.dim() == 0 or len(tensor) != len(tensors[first]):
            raise ShapeError(f"{where}, {first} has {tuple(tensors[first].shape)}; both need one row a record")
        ndim = parsed[key].ndim
        if ndim is None:
            continue
        if tensor.dim() != ndim:
            raise ShapeError(f"{where}; expected {ndim} dimension{'s' * (ndim > 1)}")
        other = expected.setdefault(_shape_class(parsed[key]), key)
        if tensor.shape != tensors[other].shape:
            raise ShapeError(f"{where}, {other} has {tuple(tensors[other].shape)}; they must be equal")
    # A column such as preference is (B,), or shaped like a tensor it goes with; (B, 1) would broadcast to (B, B).
    shapes = {tuple(tensor.shape) for key, tensor in tensors.items() if parsed[key].kind != "free"}
    for key, tensor in tensors.items():
        if parsed[key].kind == "free" and tensor.dim() > 1 and tuple(tensor.shape) not in shapes:
            raise ShapeError(f"objective '{name}': {key} has shape {tuple(tensor.shape)}; expected ({len(tensor)},)")
    return tensors


def _promote(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cast floats to one dtype and cut the gradient of everything that the policy did not compute."""
    kinds = {key: parse(key) for key in tensors}
    leading = [tensor for key, tensor in tensors.items() if kinds[key].kind == "model"] or list(tensors.values())
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in leading) else torch.float32
    result = {}
    for key, tensor in tensors.items():
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        trained = kinds[key].kind == "model" and kinds[key].role in ("", "policy")
        result[key] = tensor if trained else tensor.detach()
    return result

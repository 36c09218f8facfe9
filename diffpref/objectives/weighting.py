"""What makes a plain function a weighting of records, which a recipe may put on any objective, and the registry.

A weighting sees tensors by their vocabulary names and returns (B,) factors of the losses, which never carry gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ConfigError
from diffpref.core.registry import Registry
from diffpref.core.vocabulary import parse
from diffpref.objectives.base import Evidence
from diffpref.objectives.checks import promote
from diffpref.objectives.declared import Declared, read_signature

__all__ = ["Weighting", "WeightingSpec", "read_weightings", "registry", "weighting"]

F = TypeVar("F", bound=Callable[..., Any])
NORMALIZE = "normalize"


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightingSpec(Declared):
    """What is known of a weighting without calling it; see `Declared`.

    Args:
        source: paper or repository.
        evidence: how far it was read.
        column: the option that names one more tensor, which the function gets as ``values``; ``""`` for most.
    """

    source: str
    evidence: Evidence
    column: str = ""


registry: Registry[WeightingSpec] = Registry("weighting", "diffpref.objectives", group="diffpref.weightings")


def weighting(
    name: str,
    *,
    source: str,
    evidence: Evidence,
    init: Callable[[], dict[str, Tensor]] | None = None,
    column: str = "",
    aliases: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Register a function as a weighting; the function itself stays as it is.

    Its tensors and options are read from its signature as those of an objective are. With ``init`` it gets the running
    statistics as ``state`` and returns (weights, new statistics).

    Args:
        name: canonical name.
        source: paper or repository.
        evidence: how far it was read.
        init: makes the running statistics.
        column: the option that names the tensor given as ``values``.
        aliases: other names that recipes may use.
    """

    def decorate(function: F) -> F:
        tensors, optional, defaults = read_signature(
            f"weighting '{name}'", function, init is not None, free=frozenset({"values"} if column else ())
        )
        if NORMALIZE in defaults:
            raise ConfigError(f"weighting '{name}': '{NORMALIZE}' is an option of all; give it another name")
        spec = WeightingSpec(
            name=name,
            tensors=tensors,
            optional=optional,
            defaults={**defaults, NORMALIZE: (bool, False)},
            function=function,
            init=init,
            what="weighting",
            source=source,
            evidence=evidence,
            column=column,
        )
        registry.register(name, aliases=aliases)(spec)
        return function

    return decorate


@dataclass(frozen=True)
class Weighting:
    """A weighting with valid options."""

    spec: WeightingSpec
    options: BaseModel

    @property
    def tensors(self) -> tuple[str, ...]:
        """The vocabulary names that must be there."""
        named = (str(getattr(self.options, self.spec.column)),) if self.spec.column else ()
        return (*self.spec.tensors, *named)

    @property
    def normalize(self) -> bool:
        """Whether the loss is divided by the sum of the weights, not by the number of records."""
        return bool(getattr(self.options, NORMALIZE))

    @property
    def effective(self) -> dict[str, dict[str, Any]]:
        """The weighting with every option written out."""
        return {self.spec.name: self.options.model_dump()}

    def __call__(self, tensors: Tensors, state: Tensors | None = None) -> tuple[Tensor, Tensors | None]:
        """Return detached (B,) weights, and the new running statistics where there are any."""
        arguments = self.spec.arguments(tensors, self.options, state)
        arguments.pop(NORMALIZE)
        if self.spec.column:
            name = self.tensors[-1]
            if name not in tensors:
                raise ConfigError(f"weighting '{self.spec.name}' needs {name}; got {', '.join(tensors)}")
            arguments["values"] = promote({name: tensors[name]})[name]
        found = self.spec.function(**arguments)
        weights, after = found if isinstance(found, tuple) else (found, None)
        return weights.detach(), after


def read_weightings(given: Any, likelihood: str, path: str) -> tuple[Weighting, ...]:
    """Read ``madpo``, ``{madpo: {tau: 2.0}}`` or a list of these.

    Raises:
        ConfigError: everything that is wrong, a line each, with its path.
    """
    found, errors = [], []
    entries = given if isinstance(given, list) else [given]
    for position, entry in enumerate(entries):
        where = f"{path}[{position}]" if isinstance(given, list) else path
        try:
            found.append(_read(entry, likelihood, where))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return tuple(found)


def _read(entry: Any, likelihood: str, path: str) -> Weighting:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not (isinstance(entry, Mapping) and len(entry) == 1 and isinstance(next(iter(entry)), str)):
        raise ConfigError(f"{path}: must be a name or {{name: {{option: value}}}}, got {entry!r}")
    name, values = next(iter(entry.items()))
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}.{name}: options must be keys and values, got {values!r}")
    try:
        spec = registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    options = spec.read_options(values, likelihood=likelihood, path=f"{path}.{name}")
    if spec.column:
        try:
            parse(getattr(options, spec.column))
        except ConfigError as error:
            raise ConfigError(f"{path}.{name}.{spec.column}: {error}") from None
    return Weighting(spec, options)

"""What a function of tensors and hyper-parameters declares by its signature, and how it is called with checked ones."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import parse
from diffpref.objectives.checks import check_shapes, promote
from diffpref.objectives.options import options_error, options_model

__all__ = ["Declared", "read_signature"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Declared:
    """A function whose tensors are named by the vocabulary and whose other parameters are hyper-parameters.

    Args:
        name: canonical registry name.
        tensors: the tensors it cannot do without, by vocabulary name.
        optional: data columns that it uses when the batch has them.
        defaults: hyper-parameter -> (annotation, default); the default is a `diffpref.core.annotations.Scale` where it
            depends on the likelihood, ``inspect.Parameter.empty`` where there is none.
        function: the undecorated function.
        init: makes the running statistics that the function's parameter ``state`` starts from.
        what: what it is, for messages.
    """

    name: str
    tensors: tuple[str, ...]
    optional: tuple[str, ...]
    defaults: Mapping[str, tuple[Any, Any]]
    function: Callable[..., Any]
    init: Callable[[], dict[str, Tensor]] | None = None
    what: str = "objective"

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

    def evaluate(self, tensors: Mapping[str, Tensor], options: BaseModel, state: Any = None) -> Any:
        """Call the function on checked and promoted tensors with options that are valid already.

        Raises:
            ConfigError: a tensor is missing.
            ShapeError: a tensor has not the shape that its name promises, or two disagree.
        """
        return self.function(**self.arguments(tensors, options, state))

    def arguments(self, tensors: Mapping[str, Tensor], options: BaseModel, state: Any = None) -> dict[str, Any]:
        """Return what `evaluate` calls the function with."""
        missing = [name for name in self.tensors if name not in tensors]
        if missing:
            raise ConfigError(
                f"{self.what} '{self.name}' needs {', '.join(missing)}; got {', '.join(tensors) or 'none'}"
            )
        given = {name: tensors[name] for name in (*self.tensors, *self.optional) if tensors.get(name) is not None}
        arguments: dict[str, Any] = dict(promote(check_shapes(self.name, given))) if given else {}
        arguments.update({name: getattr(options, name) for name in self.defaults})
        if self.init is not None:
            arguments["state"] = self.init() if state is None else state
        return arguments


def read_signature(
    what: str, function: Callable[..., Any], has_state: bool, free: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[Any, Any]]]:
    """Return required tensors, optional tensors, and option -> (annotation, default).

    Args:
        what: for messages, ``"objective 'dpo'"``.
        function: keyword-only, every parameter annotated.
        has_state: whether it may have a parameter ``state``.
        free: parameters whose tensor is named elsewhere.

    Raises:
        ConfigError: a parameter cannot be read.
    """
    hints = get_type_hints(function, include_extras=True)
    tensors, optional, defaults = [], [], {}
    for parameter in inspect.signature(function).parameters.values():
        where = f"{what}: parameter '{parameter.name}'"
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(f"{where} must be keyword-only")
        if parameter.name not in hints:
            raise ConfigError(f"{where} needs an annotation: Tensor, or the type of a hyper-parameter")
        hint = hints[parameter.name]
        members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
        if parameter.name == "state":
            if not has_state:
                raise ConfigError(f"{where} holds running statistics; say with init= what they start from")
        elif parameter.name in free:
            continue
        elif hint is Tensor:
            tensors.append(str(parse(parameter.name)))
        elif Tensor in members:
            if parse(parameter.name).kind == "model":
                raise ConfigError(f"{where} is computed by a model and cannot be optional")
            optional.append(parameter.name)
        else:
            defaults[parameter.name] = (hint, parameter.default)
    if not tensors and not free:
        raise ConfigError(f"{what} names no tensor")
    return tuple(tensors), tuple(optional), defaults

"""What makes a plain function an objective: the decorator that reads its signature, and the registry.

An objective is a pure function of tensors named by `diffpref.core.vocabulary`. Every other parameter is a
hyper-parameter, and its annotation becomes a validated option. Nothing else has to be declared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast

from pydantic import BaseModel
from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.core.registry import Registry
from diffpref.core.vocabulary import parse
from diffpref.objectives.declared import Declared, read_signature

__all__ = ["Evidence", "Kind", "Objective", "ObjectiveSpec", "Sign", "objective", "registry"]

Evidence = Literal["official", "paper", "secondary", "memory", "ours"]
"""Where the formula was read: the official code, the paper, someone's account, general knowledge, our own design."""
Kind = Literal["pairwise", "pointwise", "listwise", "token", "step", "supervised"]
Sign = Literal["-", "+"]
"""How a loss moves with a tensor, at every point: ``"-"`` it never rises when the tensor does, ``"+"`` never falls."""

RESERVED = frozenset({"coefficient", "groups", "weighting", "automatic_beta", "margin_clip", "dpop", "safeguard"})
"""What every term of a recipe may say besides the objective's own options."""

P = ParamSpec("P")
R = TypeVar("R", bound="Tensor | Terms", covariant=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectiveSpec(Declared):
    """What is known of an objective without calling it; see `Declared` for what its signature says.

    Args:
        kind: what it compares.
        source: paper or repository, with the equation or function.
        evidence: how far the source was read.
        coupling: ``"batch"`` when a loss depends on the other records of the batch, so that accumulation must replay.
        published: the likelihoods with which its source used it; it is defined wherever its tensors are.
        signs: how the loss moves with each trained tensor; those left out have no fixed sign.
        stops: trained tensors whose gradient is cut where they enter as a constant, so that the gradient is not that of
            finite differences; ``()`` for most.
        domain: tensor -> (lowest, highest) value for which the formula is meant, both allowed; outside of it the
            objective raises, or stays finite.
        same_as: the objective whose function this is with other constants; ``""`` for a function of its own.
        coupled_by: option -> the values with which records are coupled; with others each loss is a record's own.
    """

    kind: Kind
    source: str
    evidence: Evidence
    coupling: Literal["batch"] | None = None
    published: tuple[str, ...] = ("tokens",)
    signs: Mapping[str, Sign] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
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

    def evaluate(self, tensors: Mapping[str, Tensor], options: BaseModel, state: Any = None) -> Tensor | Terms:
        """Return what the function does; see `Declared.evaluate`."""
        return cast("Tensor | Terms", super().evaluate(tensors, options, state))


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
        tensors, optional, defaults = read_signature(f"objective '{name}'", function, init is not None)
        if reserved := RESERVED & {*defaults}:
            raise ConfigError(
                f"objective '{name}': the options {', '.join(sorted(reserved))} are those of every term of a recipe;"
                " give them other names"
            )
        trained = tuple(tensor for tensor in tensors if parse(tensor).trained)
        directions = _default_signs(trained) if signs is None else dict(signs)
        if strangers := ({*directions, *stops} - {*trained}) | ({*(domain or {})} - {*tensors, *optional}):
            raise ConfigError(
                f"objective '{name}': signs, stops or domain name {', '.join(sorted(strangers))}; signs and stops are"
                f" of {', '.join(trained) or 'nothing'}, domain of the function's tensors"
            )
        spec = ObjectiveSpec(
            name=name,
            tensors=tensors,
            optional=optional,
            defaults=defaults,
            function=function,
            init=init,
            kind=kind,
            source=source,
            evidence=evidence,
            coupling=coupling,
            published=published,
            signs=directions,
            stops=stops,
            domain=dict(domain or {}),
            same_as=same_as,
            coupled_by=dict(coupled_by or {}),
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

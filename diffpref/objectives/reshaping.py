"""What a recipe may change about how any pairwise objective compares: beta, margins, and which side is pushed.

Each works on the tensors before the objective sees them, so that it is written once for all objectives and likelihoods:

- ``dpop``: the chosen sample's score pays for falling below the reference (DPO-Positive);
- ``automatic_beta``: beta follows the logits, so that the loss keeps a gradient;
- ``margin_clip``: pairs whose logit is beyond it are left in peace;
- ``safeguard``: the rejected sample is not pushed away at the chosen one's expense (as Diffusion-SDPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative, Number, Positive, Probability
from diffpref.core.contracts import Tensors
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import ObjectiveSpec
from diffpref.objectives.checks import promote
from diffpref.objectives.options import options_error
from diffpref.objectives.sides import Sides, sides_of

__all__ = ["AutomaticBeta", "Reshaping", "Safeguard", "read_reshaping"]

BETA = "automatic_beta.beta"
PREDICTIONS = ("policy_chosen_prediction", "policy_rejected_prediction", "chosen_target", "rejected_target")


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AutomaticBeta(_Options):
    """Beta as a running number that keeps the slope of the sigmoid near a target.

    The slope is ``sigmoid(m) * sigmoid(-m)`` at the logit ``m``: 0.25 where policy and reference agree, near 0 where
    logits are saturated. Each update multiplies beta by ``exp(rate * (slope - target_slope) / target_slope)``, with the
    mean slope of its records: beta falls while logits are too large and rises while they are too small.

    Args:
        target_slope: below 0.25; at 0.2 logits are near 1 either way.
        rate: of the change; 0.01 forgets within 100 updates.
        lowest: bound, as a multiple of the objective's ``beta``, from which it starts.
        highest: the other bound. While policy and reference still agree beta rises towards it.
    """

    target_slope: Annotated[Number, Field(gt=0, lt=0.25)] = 0.2
    rate: Annotated[Number, Field(gt=0, le=1)] = 0.01
    lowest: Annotated[Number, Field(gt=0, le=1)] = 0.1
    highest: Annotated[Number, Field(ge=1)] = 10.0


class Safeguard(_Options):
    r"""How much of the rejected sample's gradient passes, between 0 and 1, so that the chosen one does not suffer.

    Args:
        by: ``"log_ratio"``: all of it while the chosen sample is at least as likely as under the reference, ``least``
            of it otherwise. ``"prediction"``, as Diffusion-SDPO (arXiv:2511.03317; from memory): for denoisers,
            :math:`(1 - \mu)\,|g_w|^2 / \langle g_w, g_l\rangle` where the errors :math:`g` of the two sides point the
            same way, at most 1: to first order in the outputs the chosen sample's error cannot rise.
        least: what passes under ``"log_ratio"`` where the chosen sample fell below the reference.
        mu: the margin of safety of ``"prediction"``.
    """

    by: Literal["log_ratio", "prediction"] = "log_ratio"
    least: Probability = 0.0
    mu: Annotated[Number, Field(ge=0, lt=1)] = 0.0


def _defaults(value: Any) -> Any:
    """Read ``true`` and nothing as all defaults, and ``false`` as none."""
    return {} if value is True else None if value is False else value


class _Given(_Options):
    automatic_beta: Annotated[AutomaticBeta | None, BeforeValidator(_defaults)] = None
    margin_clip: Positive | None = None
    dpop: NonNegative | None = None
    safeguard: Annotated[Safeguard | None, BeforeValidator(_defaults)] = None


OPTIONS = frozenset(_Given.model_fields)


@dataclass(frozen=True)
class Reshaping:
    """The changes of one term.

    Args:
        given: the options.
        sides: what the objective compares; None where nothing is changed.
        beta: the objective's; None where it has none.
    """

    given: _Given = field(default_factory=_Given)
    sides: Sides | None = None
    beta: float | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names that must be there besides the objective's."""
        guard = self.given.safeguard
        relative = self.given.dpop is not None or (guard is not None and guard.by == "log_ratio")
        names = ["chosen_log_ratio"] if relative and self.sides is not None and not self.sides.relative else []
        return (*names, *(PREDICTIONS if guard is not None and guard.by == "prediction" else ()))

    @property
    def effective(self) -> dict[str, Any]:
        """The changes with every option written out."""
        return self.given.model_dump(exclude_none=True)

    def initial_state(self) -> dict[str, Tensor]:
        """Return the running statistics before the first update."""
        return {} if self.given.automatic_beta is None else {BETA: torch.tensor(self.beta, dtype=torch.float64)}

    def current_beta(self, state: Tensors | None) -> Tensor | float | None:
        """Return the beta in force."""
        return self.beta if self.given.automatic_beta is None or not state else state[BETA]

    def __call__(
        self, tensors: Tensors, options: BaseModel, state: Tensors | None
    ) -> tuple[Tensors, BaseModel, dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors and options that the objective is to see, the new statistics, and (B,) metrics."""
        sides, given = self.sides, self.given
        if sides is None:
            return tensors, options, {}, {}
        tensors = {**tensors, **promote({name: tensors[name] for name in self._read(sides, tensors)})}
        metrics: dict[str, Tensor] = {}
        after: dict[str, Tensor] = {}
        beta = self.current_beta(state)
        if given.safeguard is not None:
            factor = _passed(given.safeguard, sides, tensors)
            tensors = {**tensors, sides.rejected: sides.damped(sides.rejected, tensors, factor)}
            metrics["safeguard"] = factor
        if given.dpop is not None:
            debt = relu(-_relative(sides, tensors))
            tensors = {**tensors, sides.chosen: sides.moved(sides.chosen, tensors, -given.dpop * debt)}
            metrics["dpop"] = debt.detach()
        if given.automatic_beta is not None:
            chosen, rejected = sides.totals(tensors)
            beta = torch.as_tensor(beta, dtype=chosen.dtype, device=chosen.device)
            slope = _slope(beta * (chosen - rejected).detach())
            after[BETA] = self._followed(beta, slope.mean())
            metrics |= {"beta": beta.expand_as(slope), "slope": slope}
            options = options.model_copy(update={"beta": beta})
        if given.margin_clip is not None:
            chosen, rejected = sides.totals(tensors)
            difference = chosen - rejected
            limit = torch.as_tensor(given.margin_clip / (1.0 if beta is None else beta)).to(difference)
            excess = difference - torch.clamp(difference, min=-limit, max=limit)
            tensors = {
                **tensors,
                sides.chosen: sides.moved(sides.chosen, tensors, -excess / 2),
                sides.rejected: sides.moved(sides.rejected, tensors, excess / 2),
            }
            metrics["clipped"] = (excess != 0).to(excess.dtype)
        return tensors, options, after, metrics

    def _read(self, sides: Sides, tensors: Tensors) -> list[str]:
        lengths = ("chosen_length", "rejected_length") if sides.per_length else ()
        more = [f"{group}_{unit}_mask" for group in ("chosen", "rejected") for unit in ("token", "segment")]
        wanted = (sides.chosen, sides.rejected, *lengths, *self.tensors)
        if absent := [name for name in wanted if name not in tensors]:
            raise ConfigError(f"margins are to be changed, which needs {', '.join(absent)}; got {', '.join(tensors)}")
        return [*wanted, *(name for name in more if tensors.get(name) is not None)]

    def _followed(self, beta: Tensor, slope: Tensor) -> Tensor:
        settings, start = self.given.automatic_beta, self.beta
        assert settings is not None and start is not None
        wanted = beta.double() * torch.exp(settings.rate * (slope.double() / settings.target_slope - 1))
        return wanted.clamp(min=settings.lowest * start, max=settings.highest * start)


def _slope(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits) * torch.sigmoid(-logits)


def _relative(sides: Sides, tensors: Tensors) -> Tensor:
    """Return (B,) how much more likely the chosen sample is than under the reference."""
    return sides.total(sides.chosen if sides.relative else "chosen_log_ratio", tensors)


def _passed(guard: Safeguard, sides: Sides, tensors: Tensors) -> Tensor:
    """Return the detached (B,) share of the rejected sample's gradient that passes."""
    if guard.by == "log_ratio":
        better = (_relative(sides, tensors).detach() >= 0).to(tensors[sides.chosen].dtype)
        return better + guard.least * (1 - better)
    chosen, rejected = (
        (tensors[f"policy_{side}_prediction"] - tensors[f"{side}_target"]).detach().flatten(1)
        for side in ("chosen", "rejected")
    )
    along = (chosen * rejected).sum(dim=1)
    share = (1 - guard.mu) * chosen.square().sum(dim=1) / torch.where(along > 0, along, 1.0)
    return torch.where(along > 0, share, 1.0).clamp(max=1.0).to(tensors[sides.chosen].dtype)


def read_reshaping(spec: ObjectiveSpec, options: BaseModel, values: Mapping[str, Any], path: str) -> Reshaping:
    """Validate the changes that a term asks for.

    Raises:
        ConfigError: everything that is wrong, a line each: a value, or an objective that cannot be changed so.
    """
    try:
        given = _Given.model_validate(dict(values))
    except ValidationError as error:
        raise options_error(error, path, list(_Given.model_fields)) from None
    asked = sorted(given.model_dump(exclude_none=True))
    if not asked:
        return Reshaping()
    sides, beta = sides_of(spec, options), getattr(options, "beta", None)
    if sides is None:
        read = ", ".join(spec.tensors)
        raise ConfigError(
            "\n".join(
                f"{path}.{name}: '{spec.name}' compares no chosen with a rejected sample by their likelihoods"
                f" (it reads {read}); leave it out"
                for name in asked
            )
        )
    if given.automatic_beta is not None and not isinstance(beta, float):
        raise ConfigError(f"{path}.automatic_beta: '{spec.name}' has no option beta; leave it out")
    return Reshaping(given, sides, beta if isinstance(beta, float) else None)

"""Annotations of hyper-parameters: what values are allowed, and defaults that depend on the likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = [
    "Fraction",
    "HalfProbability",
    "NonNegative",
    "NonNegativeInt",
    "Number",
    "Positive",
    "PositiveInt",
    "Probability",
    "Scale",
    "resolve",
    "scale",
]


def _number(value: Any) -> Any:
    """Read text such as ``1e-5``, which YAML 1.1 does not take for a number; the model itself refuses booleans."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
"""Any finite number."""
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Probability = Annotated[Number, Field(ge=0, le=1)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
"""A share that is neither nothing nor all."""
HalfProbability = Annotated[Number, Field(ge=0, lt=0.5)]
"""A probability of error below which a label still says something: [0, 0.5)."""
PositiveInt = Annotated[int, Field(gt=0, strict=True)]
NonNegativeInt = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class Scale:
    """A default that depends on the scale of the log-likelihoods; make it with `scale`."""

    tokens: Any
    denoising: Any


def scale(*, tokens: Any, denoising: Any) -> Any:
    """Return a default for a hyper-parameter whose sensible value depends on the likelihood.

    Log-likelihoods of token sequences, of sampling steps and of rewards are in nats. Those of denoisers are -0.5 times
    a *mean* squared error, tens of thousands of times smaller: DPO's beta of 0.1 and of 5000 are numbers of one kind.

    Args:
        tokens: the value in nats, which a direct call of an objective uses too.
        denoising: the value for ``likelihood="denoising"``.
    """
    return Scale(tokens, denoising)


def resolve(default: Any, likelihood: str) -> Any:
    """Return the value that a default has under a likelihood; a plain default is itself."""
    if not isinstance(default, Scale):
        return default
    return default.denoising if likelihood == "denoising" else default.tokens

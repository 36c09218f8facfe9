"""Inputs for any objective, made from what its names and its specification promise."""

from __future__ import annotations

import itertools
import json
import math
import runpy
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.core.vocabulary import WIDE, Name, parse
from diffpref.objectives import ObjectiveSpec

__all__ = [
    "GOLDEN",
    "REFERENCES",
    "B",
    "golden_cases",
    "losses_of",
    "options_of",
    "reference",
    "situations",
    "tensor_named",
    "tensors_of",
    "variants",
]

TESTS = Path(__file__).parents[1]
GOLDEN, REFERENCES = TESTS / "golden" / "objectives", TESTS / "objectives" / "references"
B, K, T, PICTURE = 5, 4, 3, (2, 2, 3)
SEVERAL = 3  # rewards of a sample, classes of a head
TOKENS = {"chosen": T, "rejected": T + 2}  # sequences of a pair differ in length

Options = Mapping[str, Any]


def tensors_of(
    spec: ObjectiveSpec, seed: int = 0, *, optional: bool = False, scale: float = 1.0, size: int = B
) -> dict[str, Tensor]:
    """Return plausible float64 tensors of the shapes that the names promise, inside the objective's domain.

    Args:
        spec: of the objective.
        seed: of the numbers.
        optional: whether the optional columns are there too.
        scale: factor of what models compute.
        size: records.
    """
    generator = torch.Generator().manual_seed(seed)
    names = (*spec.tensors, *(spec.optional if optional else ()))
    return {name: _tensor(parse(name), spec.domain.get(name), generator, scale, size) for name in names}


def tensor_named(name: str, seed: int = 0, size: int = B) -> Tensor:
    """Return a plausible float64 tensor for a vocabulary name, another for each name."""
    generator = torch.Generator().manual_seed(seed * 1000 + sum(name.encode()))
    return _tensor(parse(name), None, generator, 1.0, size)


def _tensor(
    name: Name, domain: tuple[float, float] | None, generator: torch.Generator, scale: float, size: int
) -> Tensor:
    shape = (size, *_shape(name))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    quantity = name.quantity
    if domain is not None:
        values = _into(values * scale, *domain)
    elif quantity == "length":
        values = values.abs().mul(4).ceil() + 1
    elif quantity in ("preference", "weight", "kl_weight", "win_rate", "draw"):
        values = values.sigmoid()
    elif quantity == "preferences":
        values = torch.where(values < -0.8, -1.0, values.sigmoid())  # below 0 nobody judged
    elif quantity == "preference_matrix":
        values = (values - values.transpose(1, 2)).sigmoid()
    elif quantity == "visits":
        values = values.abs().mul(6).floor()
    elif quantity in ("label", "start"):
        values = (values > 0).to(torch.float64)
    elif quantity == "mask":
        values = _ragged(values)
    elif quantity == "ranks":
        values = values.argsort(dim=-1).argsort(dim=-1).to(torch.float64)
    elif quantity == "timesteps":
        values = values.sigmoid().mul(1000).floor()
    elif quantity == "logps":
        values = -torch.nn.functional.softplus(values) * scale
    elif quantity in ("kl", "errors", "std", "beta_scale"):
        values = values.abs() * scale + 0.01
    elif name.kind == "model":
        values = values * scale
    return values


def _shape(name: Name) -> tuple[int, ...]:
    if name.kind == "free":
        return (K,) if name.quantity == "ranks" else ()
    shape: tuple[int, ...] = (K,) if name.group == "list" else ()
    if name.ndim is None:
        return (*shape, *PICTURE)
    if name.unit:
        shape = (*shape, TOKENS.get(name.group, T) if name.unit == "token" else T)
    if name.several:
        return (*shape, SEVERAL)
    if name.quantity in WIDE:
        shape = (*shape, K)  # of an embedding as many as of candidates: even
    return shape


def _into(values: Tensor, low: float, high: float) -> Tensor:
    """Bring numbers into an interval."""
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * values.sigmoid()
    if math.isfinite(high):
        return high - values.abs() - 0.01
    return low + values.abs() + 0.01 if math.isfinite(low) else values


def _ragged(values: Tensor) -> Tensor:
    """Ones at the start of each row, at least two, then zeros: no gaps, as of sequences and of short lists."""
    length = values.shape[-1]
    counts = (values[..., :1].sigmoid() * (length - 1)).floor() + 2
    return (torch.arange(length) < counts).to(torch.float64)


@cache
def _module(path: str) -> dict[str, Any]:
    return runpy.run_path(path)


def reference(spec: ObjectiveSpec) -> Callable[..., Any]:
    """Return the independent numpy implementation: the function of the same name in the file of the same topic."""
    return _references(spec)[spec.name]


def _references(spec: ObjectiveSpec) -> dict[str, Any]:
    topic = spec.function.__module__.rpartition(".")[2]
    return _module(str(REFERENCES / f"{topic}.py"))


def variants(spec: ObjectiveSpec) -> list[Options]:
    """Return the settings of options under which an objective is tested; the defaults where none are listed."""
    return list(_references(spec).get("VARIANTS", {}).get(spec.name, [{}]))


def golden_cases(name: str) -> list[dict[str, Any]]:
    """Return the golden cases of an objective."""
    cases: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    return cases


def options_of(spec: ObjectiveSpec, given: Options, *, likelihood: str = "tokens") -> Any:
    """Return validated options."""
    return spec.read_options(given, likelihood=likelihood)


def losses_of(
    spec: ObjectiveSpec, tensors: Mapping[str, Tensor], options: Options | None = None, state: Any = None
) -> Tensor:
    """Return the unreduced losses."""
    value = spec.evaluate(tensors, options_of(spec, options or {}), state)
    return value.losses if isinstance(value, Terms) else value


def situations(spec: ObjectiveSpec) -> Iterator[tuple[bool, Options]]:
    """Yield (with optional columns?, options) for every way in which an objective is tested.

    A variant may say ``"_optional": True`` or ``False`` where it needs, or cannot have, the optional columns.
    """
    for given, optional in itertools.product(variants(spec), (False, True) if spec.optional else (False,)):
        options = {key: value for key, value in given.items() if key != "_optional"}
        if given.get("_optional", optional) == optional:
            yield optional, options

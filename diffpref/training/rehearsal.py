"""The objectives computed once on stand-ins, before anything is loaded: what they refuse is told at once.

An objective may ask for what its options need and its signature leaves open, lengths with ``length_normalize``, or
refuse what a column holds. It would say so at the first update; by then images were encoded and networks loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffpref.core.vocabulary import FULL, parse
from diffpref.data import Item
from diffpref.objectives.compose import Composition

__all__ = ["rehearse", "stand_ins"]

RECORDS, UNITS = 2, 4
VALUES = {"logps": -2.0, "log_ratio": 0.0, "kl": 0.1, "errors": 1.0, "length": 3.0, "std": 1.0, "mask": 1.0}
"""What a quantity is taken to be; 0.5 where nothing is said."""


def rehearse(
    composition: Composition,
    served: Sequence[str],
    item: Item,
    given: frozenset[str],
    timesteps: Tensor | None = None,
) -> None:
    """Compute the objectives on one item, twice, as if policy and reference agreed.

    Args:
        composition: the objectives.
        served: names that the likelihood will give.
        item: whose columns are real, but for labels of segments, which wait for the frames that are shown.
        given: columns that the data give, or the method makes of them.
        timesteps: (2,) such as are drawn; None: some that the objectives can read.

    Raises:
        ConfigError: what an objective says against it.
    """
    names = [*composition.tensors, *(n for n in composition.optional if n in served or n in given or n == "list_mask")]
    candidates = item.groups.get("list")
    length = len(candidates) if isinstance(candidates, tuple) else UNITS
    told = {
        name: torch.tensor([value] * RECORDS)
        for name, value in item.columns.items()
        if (name in given or name in composition.tensors) and parse(name).unit != "segment"
    }
    domains = {name: bounds for term in composition.terms for name, bounds in term.spec.domain.items()}
    several = next((tensor.shape[1] for name, tensor in told.items() if parse(name).several), UNITS)
    if timesteps is not None:
        told["timesteps"] = timesteps
    composition({**stand_ins(names, length, domains, several), **told}, composition.initial_state())


def stand_ins(
    names: Sequence[str],
    length: int = UNITS,
    domains: Mapping[str, tuple[float, float]] | None = None,
    several: int = UNITS,
) -> dict[str, Tensor]:
    """Return a tensor of the right shape for each name.

    Args:
        names: of the vocabulary.
        length: candidates in a list.
        domains: name -> the interval in which its values lie.
        several: how many numbers there are of what is several, such as aspects.
    """
    made = {}
    for name in names:
        parsed = parse(name)
        shape = [RECORDS, length] if parsed.group == "list" or name == "ranks" else [RECORDS]
        if parsed.quantity in FULL:
            shape += [1, UNITS, UNITS]
        side = several if parsed.several else length if parsed.group == "list" and not parsed.unit else UNITS
        shape += [side] * ((parsed.ndim or 0) - len(shape))
        low, high = (domains or {}).get(name, (-math.inf, math.inf))
        made[name] = torch.full(shape, min(max(VALUES.get(parsed.quantity, 0.5), low), high))
    return made

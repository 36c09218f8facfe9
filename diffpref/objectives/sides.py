"""The two samples that an objective compares: which tensors hold them, their totals, and how to move these.

With it a change of a margin is written once for log-ratios and log-likelihoods, whole samples and their parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.vocabulary import parse
from diffpref.objectives.base import ObjectiveSpec

__all__ = ["Sides", "sides_of"]

FORMS = (
    "{}_log_ratio",
    "{}_token_log_ratio",
    "{}_segment_log_ratio",
    "policy_{}_logps",
    "policy_{}_token_logps",
    "policy_{}_segment_logps",
)


@dataclass(frozen=True)
class Sides:
    """Names of the two tensors that an objective compares.

    Args:
        chosen: such as ``chosen_log_ratio``.
        rejected: of the same form.
        per_length: whether the objective divides totals by lengths.
    """

    chosen: str
    rejected: str
    per_length: bool = False

    @property
    def relative(self) -> bool:
        """Whether they compare with a reference."""
        return parse(self.chosen).quantity == "log_ratio"

    def totals(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Return (B,) what the objective compares of either side: sums over parts, by length where it divides."""
        return self.total(self.chosen, tensors), self.total(self.rejected, tensors)

    def total(self, name: str, tensors: Tensors) -> Tensor:
        """Return (B,) the total of a tensor."""
        values = tensors[name]
        if parse(name).unit:
            values = torch.where(_mask(name, tensors) > 0, values, 0.0).sum(dim=1)
        return values / self._length(name, tensors) if self.per_length else values

    def moved(self, name: str, tensors: Tensors, by: Tensor) -> Tensor:
        """Return a tensor whose total is larger by (B,) ``by``, spread evenly over its parts."""
        by = by * self._length(name, tensors) if self.per_length else by
        if not parse(name).unit:
            return tensors[name] + by
        mask = _mask(name, tensors)
        return tensors[name] + (by / mask.sum(dim=1)).unsqueeze(1) * mask

    def damped(self, name: str, tensors: Tensors, factor: Tensor) -> Tensor:
        """Return a tensor of the same numbers whose gradient is (B,) ``factor`` times what it was."""
        values, still = tensors[name], tensors[name].detach()
        return still + factor.view(-1, *[1] * (values.dim() - 1)) * (values - still)

    def _length(self, name: str, tensors: Tensors) -> Tensor:
        return tensors[f"{parse(name).group}_length"]


def _mask(name: str, tensors: Tensors) -> Tensor:
    parsed = parse(name)
    mask = tensors.get(f"{parsed.group}_{parsed.unit}_mask")
    return torch.ones_like(tensors[name]) if mask is None else mask


def sides_of(spec: ObjectiveSpec, options: BaseModel) -> Sides | None:
    """Return what an objective compares; None where it compares no chosen with a rejected sample by likelihood."""
    lengths = {"chosen_length", "rejected_length"} <= {*spec.tensors, *spec.optional}
    for form in FORMS:
        chosen, rejected = form.format("chosen"), form.format("rejected")
        if {chosen, rejected} <= set(spec.tensors):
            return Sides(chosen, rejected, lengths and bool(getattr(options, "length_normalize", False)))
    return None

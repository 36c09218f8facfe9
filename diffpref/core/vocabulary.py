"""A tensor's name says everything: ``[role_][group_][unit_]quantity``.

``reference_rejected_logps`` is what the reference says of the rejected sample. The name fixes the shape, who computes
the tensor and which models must run, so an objective that names its parameters has declared all it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from diffpref.core.errors import ConfigError, suggest

__all__ = [
    "DATA",
    "DRAWN",
    "FREE",
    "FULL",
    "GROUPS",
    "MODEL",
    "ROLES",
    "SEVERAL",
    "TRAINED",
    "UNITS",
    "WIDE",
    "Name",
    "parse",
    "required_groups",
    "required_roles",
]

ROLES = ("policy", "reference", "previous", "behaviour", "peer", "guide")
TRAINED = ("policy", "peer")  # a gradient may flow into what these computed, and into nothing else
GROUPS = ("chosen", "rejected", "list", "gold", "rationale", "calibration", "online", "mismatched", "corrupted")
UNITS = ("token", "segment")
MODEL = (
    "logps",
    "log_ratio",
    "kl",
    "errors",
    "prediction",
    "mean",
    "std",
    "value",
    "score",
    "hidden",
    "collision",
    "weight",
    "kl_weight",
    "embedding",
    "logits",
    "scores",
    "log_std",
)
DATA = (
    "target",
    "noisy",
    "clean",
    "length",
    "score",
    "scores",
    "win_rate",
    "label",
    "mask",
    "similarity",
    "visits",
    "start",
    "preference_matrix",
    "draw",
    "redraw",
    "preferences",
)
DRAWN = ("draw", "redraw")  # random numbers, made by key for each unit of a record
FREE = ("preference", "ranks", "weight", "beta_scale", "advantage", "timesteps")

COMPARISONS = ("log_ratio", "kl")  # a role against the reference; the policy where no role is named
FULL = ("prediction", "mean", "std", "hidden", "target", "noisy", "clean")  # as large as the model's input
WIDE = ("embedding", "preference_matrix")  # a vector each: of features, or a number against each of K candidates
SEVERAL = ("logits", "scores", "preferences")  # a number for each class, reward or aspect


@dataclass(frozen=True)
class Name:
    """A parsed name.

    Args:
        role: whose model, ``""`` where none is named.
        group: which of the compared samples, ``""`` for pointwise data.
        unit: ``"token"`` or ``"segment"`` for un-summed parts, else ``""``.
        quantity: what is measured.
        kind: ``"model"``: computed by a likelihood; ``"data"`` and ``"free"``: a column of the batch.
    """

    role: str
    group: str
    unit: str
    quantity: str
    kind: Literal["model", "data", "free"]

    def __str__(self) -> str:
        return "_".join(part for part in (self.role, self.group, self.unit, self.quantity) if part)

    @property
    def form(self) -> str:
        """What a likelihood says that it provides: the quantity, after its unit where it has one."""
        return f"{self.unit}_{self.quantity}" if self.unit else self.quantity

    @property
    def ndim(self) -> int | None:
        """Number of dimensions: (B,), (B, K) for a list, one more for a unit and for what is wide; None where the name
        leaves it open.
        """
        if self.kind == "free" or self.quantity in FULL:
            return None
        return 1 + (self.group == "list") + bool(self.unit) + (self.quantity in WIDE or self.several)

    @property
    def several(self) -> bool:
        """Whether there are several numbers of it: logits of classes; scores by several rewards or in several aspects;
        preferences by aspect. Of a list ``scores`` are one of each candidate.
        """
        return self.quantity in SEVERAL and not (self.quantity == "scores" and self.group == "list")

    @property
    def trained(self) -> bool:
        """Whether gradient may flow into it: what the policy or a peer computed."""
        return self.kind == "model" and (self.role or "policy") in TRAINED

    @property
    def roles(self) -> frozenset[str]:
        """The roles that must run: none for a column; policy and reference for a plain ``log_ratio`` or ``kl``."""
        if self.kind != "model":
            return frozenset()
        role = self.role or "policy"
        return frozenset({role, "reference"}) if self.quantity in COMPARISONS else frozenset({role})


@cache
def parse(name: str) -> Name:
    """Read a name.

    A model quantity without a role is a data column (a stored number), except ``log_ratio`` and ``kl``, which then
    compare the policy with the reference. ``score`` is a model's with a role and a data column without.

    Raises:
        ConfigError: a part is unknown or stands in the wrong place; the message says which.

    >>> parse("policy_chosen_logps")
    Name(role='policy', group='chosen', unit='', quantity='logps', kind='model')
    """
    if name in FREE:
        return Name("", "", "", name, "free")
    rest, found = name, {"role": "", "group": "", "unit": ""}
    for part, words in (("role", ROLES), ("group", GROUPS), ("unit", UNITS)):
        head, _, tail = rest.partition("_")
        if head in words and tail:
            found[part], rest = head, tail
    role = found["role"]
    if rest not in MODEL and rest not in DATA:
        raise ConfigError(f"tensor name '{name}': {_complaint(rest)}")
    if role and rest not in MODEL:
        raise ConfigError(f"tensor name '{name}': '{rest}' is a data column and takes no role, got '{role}'")
    if role == "reference" and rest in COMPARISONS:
        raise ConfigError(f"tensor name '{name}': '{rest}' compares with the reference; name another role, or none")
    is_model = rest in COMPARISONS or (rest in MODEL and role != "")
    return Name(role, found["group"], found["unit"], rest, "model" if is_model else "data")


def _complaint(rest: str) -> str:
    head, _, tail = rest.partition("_")
    for part, words in (("role", ROLES), ("group", GROUPS), ("unit", UNITS)):
        if head in words:
            if not tail:
                return f"no quantity after {part} '{head}'; known: {', '.join((*MODEL, *DATA))}"
            return f"{part} '{head}' is out of place; the order is role, group, unit, quantity"
    if rest in FREE:
        return f"'{rest}' stands alone and takes no role, group or unit"
    for part, words in (("role", ROLES), ("group", GROUPS), ("unit", UNITS)):
        hint = suggest(head, words)
        if hint and tail:
            return f"unknown {part} '{head}'{hint}"
    hint = suggest(rest, (*MODEL, *DATA, *FREE))
    if hint:
        return f"unknown quantity '{rest}'{hint}"
    return f"unknown quantity '{rest}'; known: {', '.join((*MODEL, *DATA))}; alone: {', '.join(FREE)}"


def required_roles(names: Iterable[str]) -> frozenset[str]:
    """Return the roles whose models must run for these names: a reference-free objective runs no reference.

    >>> sorted(required_roles(["chosen_log_ratio", "preference"]))
    ['policy', 'reference']
    """
    return frozenset().union(*(parse(name).roles for name in names))


def required_groups(names: Iterable[str]) -> frozenset[str]:
    """Return the groups that the models are asked about; ``""`` stands for pointwise names, columns ask nothing."""
    return frozenset(parsed.group for parsed in map(parse, names) if parsed.kind == "model")

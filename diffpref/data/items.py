"""What training reads: items, each some candidates of one record with what is known of them, and the views they are of.

A view is chosen by the groups that objective and method ask for. Which of two candidates is the better one is decided
in `diffpref.data.pairs` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeAlias

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError, DataError

__all__ = [
    "ATTACHED",
    "COMPANIONS",
    "IMPLIED",
    "VIEWS",
    "Item",
    "Value",
    "attached",
    "given_columns",
    "is_soft",
    "view_of",
]

Value: TypeAlias = "float | tuple[float, ...]"

VIEWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"pairs": ("chosen", "rejected"), "points": ("",), "lists": ("list",), "prompts": ()}
)
"""View -> the groups that its items hold; ``""`` is pointwise data, a candidate and its label."""
COMPANIONS = ("mismatched",)
"""Groups that every view can have: what another record's item holds, under this one's prompt."""
ATTACHED = ("gold", "rationale", "calibration", "online")
"""Groups that a pair can have besides its two sides: a further candidate of its record, which ``meta`` names."""
IMPLIED: Mapping[str, float] = MappingProxyType({"preference": 1.0, "weight": 1.0})
"""What a column is where nothing is told: a column that is so throughout is not handed on."""


class Item(Protocol):
    """Candidates of a record, and what is known of them."""

    @property
    def record_index(self) -> int:
        """Position of the record in its source."""
        ...

    @property
    def record_id(self) -> str:
        """Of the record."""
        ...

    @property
    def prompt(self) -> str:
        """Of the record."""
        ...

    @property
    def key(self) -> str:
        """Of the item's random draws; no two items of a view share one."""
        ...

    @property
    def groups(self) -> Mapping[str, int | tuple[int, ...]]:
        """Group -> position of the candidate, or of the candidates of ``list``."""
        ...

    @property
    def columns(self) -> Mapping[str, Value]:
        """Vocabulary name -> number, or a number for each candidate of the list."""
        ...

    @property
    def captions(self) -> Mapping[str, str]:
        """Group -> the text that it is shown under; those that are not there are shown under the prompt."""
        ...


def attached(record: Record) -> dict[str, int]:
    """Return the candidates of a record that belong to groups of `ATTACHED`, as its ``meta`` says: ``{"gold": "2"}``.

    Raises:
        DataError: what stands there is not the number of a candidate.
    """
    found = {}
    for group in ATTACHED:
        if (text := record.meta.get(group)) is not None:
            if not (text.isascii() and text.isdecimal() and int(text) < len(record.candidates)):
                raise DataError(
                    f"record {record.id!r}: meta.{group} must be the number of one of its {len(record.candidates)}"
                    f" candidates, got {text!r}"
                )
            found[group] = int(text)
    return found


def view_of(groups: Collection[str]) -> str:
    """Return the view whose items hold all of some groups, companions aside; attached groups go with pairs.

    No groups are the view of prompts: what is trained on is then made while training.

    Raises:
        ConfigError: none does; the message says which groups go together.

    >>> view_of({"chosen"}), view_of({"", "mismatched"})
    ('pairs', 'points')
    """
    if not groups:
        return "prompts"
    asked = set(groups) - set(COMPANIONS)
    for view, held in VIEWS.items():
        if asked and asked <= {*held, *(ATTACHED if view == "pairs" else ())}:
            return view
    told = "; ".join(f"{view}: {_told(held)}" for view, held in VIEWS.items() if held)
    raise ConfigError(f"no data hold {_told(sorted(asked)) or 'no group'} samples together; there are {told}")


def _told(groups: Collection[str]) -> str:
    return ", ".join(group or "single" for group in groups)


def given_columns(items: Sequence[Item]) -> frozenset[str]:
    """Return the columns that every item has, without those that say nothing."""
    common = set(items[0].columns) if items else set()
    for item in items:
        common &= item.columns.keys()
    return frozenset(
        name for name in common if name not in IMPLIED or any(item.columns[name] != IMPLIED[name] for item in items)
    )


def is_soft(items: Sequence[Item]) -> bool:
    """Whether a label of the items is no certain win."""
    return "preference" in given_columns(items)

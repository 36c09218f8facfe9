"""The view of prompts: what is asked, for methods that draw the samples themselves while they train."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Record
from diffpref.data.metadata import metadata_of
from diffpref.data.prompts import prompts_with_fields
from diffpref.data.sources import open_records

__all__ = ["Prompt", "open_prompts", "prompt_view"]

TABLES = (".parquet", ".tar")
"""Endings of files that hold preference data, of which the prompts are taken."""


@dataclass(frozen=True)
class Prompt:
    """A prompt without candidates.

    Args:
        record_index: position in the records that the view was made of.
        record_id: of the record.
        prompt: the text.
        meta: what the record says besides, as rewards read it.
        captions: none, there being no candidates.
    """

    record_index: int
    record_id: str
    prompt: str
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    captions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Of the prompt's random draws."""
        return self.record_id

    @property
    def groups(self) -> Mapping[str, int]:
        """No candidates."""
        return {}

    @property
    def columns(self) -> Mapping[str, float]:
        """Nothing."""
        return {}


def open_prompts(source: str, *, columns: Mapping[str, str] | None = None) -> Sequence[Record]:
    """Return the prompts of a source as records; of preference data every record, whatever candidates it has.

    Args:
        source: what `diffpref.data.load_prompts` reads; or a folder, ``.parquet`` or ``.tar`` file of preference data.
        columns: of preference data in no store.

    Raises:
        DataError: nothing there, or no prompts in it.
    """
    path = Path(source)
    if path.is_dir() or path.suffix in TABLES:
        return open_records(source, columns=columns)
    found = enumerate(prompts_with_fields(source))
    return [Record(str(number), prompt, (), meta=_as_meta(fields)) for number, (prompt, fields) in found]


def prompt_view(records: Sequence[Record]) -> list[Prompt]:
    """Return the prompt of each record, in their order."""
    return [Prompt(index, record.id, record.prompt, metadata_of(record)) for index, record in enumerate(records)]


def _as_meta(fields: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}

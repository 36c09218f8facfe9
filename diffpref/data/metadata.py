"""What a record says besides its prompt, as rewards read it."""

from __future__ import annotations

import json
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError

__all__ = ["metadata_of"]


def metadata_of(record: Record) -> dict[str, Any]:
    """Return a record's ``meta``; what is written as a JSON list or object becomes one.

    >>> metadata_of(Record("r", "p", (), meta={"answer": "12", "include": '[{"class": "red circle"}]'}))
    {'answer': '12', 'include': [{'class': 'red circle'}]}

    Raises:
        DataError: a value begins as JSON and is none.
    """
    told: dict[str, Any] = {}
    for key, value in record.meta.items():
        try:
            told[key] = json.loads(value) if value[:1] in ("[", "{") else value
        except ValueError as error:
            raise DataError(f"record {record.id!r}: meta.{key} is no JSON ({error})") from error
    return told

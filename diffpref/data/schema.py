"""The columns of a record in Arrow, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow

from diffpref.core.contracts import Candidate, Caption, Judgement, PromptMedia, Record, Score

__all__ = ["SCHEMA", "SCHEMA_VERSION", "from_row", "to_table"]

SCHEMA_VERSION = 2
"""Raised when a column is added or changes its meaning; a reader refuses a version it does not know. 2 added inputs."""

_TEXT, _NUMBER = pyarrow.string(), pyarrow.float64()
_CAPTION = pyarrow.struct({"kind": _TEXT, "text": _TEXT})
_SCORE = pyarrow.struct({"name": _TEXT, "version": _TEXT, "value": _NUMBER})
_MEDIA = pyarrow.struct({"kind": _TEXT, "bytes": pyarrow.binary(), "path": _TEXT, "sha256": _TEXT})
_CANDIDATE = pyarrow.struct(
    {
        "bytes": pyarrow.binary(),
        "path": _TEXT,
        "text": _TEXT,
        "sha256": _TEXT,
        "generator": _TEXT,
        "seed": pyarrow.int64(),
        "captions": pyarrow.list_(_CAPTION),
        "scores": pyarrow.list_(_SCORE),
        "label": _NUMBER,
    }
)
_JUDGEMENT = pyarrow.struct(
    {
        "first": pyarrow.int32(),
        "second": pyarrow.int32(),
        "probability": _NUMBER,
        "weight": _NUMBER,
        "annotator": _TEXT,
        "aspect": _TEXT,
        "start": _NUMBER,
        "end": _NUMBER,
    }
)
_META = pyarrow.struct({"key": _TEXT, "value": _TEXT})  # a list of these: `datasets` knows no Arrow map

SCHEMA = pyarrow.schema(
    {
        "id": _TEXT,
        "prompt": _TEXT,
        "inputs": pyarrow.list_(_MEDIA),
        "candidates": pyarrow.list_(_CANDIDATE),
        "judgements": pyarrow.list_(_JUDGEMENT),
        "source": _TEXT,
        "meta": pyarrow.list_(_META),
    }
)


def _to_row(record: Record) -> dict[str, Any]:
    row = asdict(record)
    row["meta"] = [{"key": key, "value": value} for key, value in record.meta.items()]
    return row


def to_table(records: Iterable[Record]) -> pyarrow.Table:
    """Return records as a table of `SCHEMA`.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: a field does not have its type.
    """
    return pyarrow.Table.from_pylist([_to_row(record) for record in records], schema=SCHEMA)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    captions = tuple(Caption(**caption) for caption in row["captions"] or ())
    scores = tuple(Score(**score) for score in row["scores"] or ())
    return Candidate(**{**row, "captions": captions, "scores": scores})


def from_row(row: Mapping[str, Any]) -> Record:
    """Return the record of one row of a table, as ``to_pylist`` gives it."""
    return Record(
        id=row["id"],
        prompt=row["prompt"],
        candidates=tuple(_candidate(candidate) for candidate in row["candidates"]),
        judgements=tuple(Judgement(**judgement) for judgement in row["judgements"] or ()),
        source=row["source"],
        meta={entry["key"]: entry["value"] for entry in row["meta"] or ()},
        inputs=tuple(PromptMedia(**media) for media in row.get("inputs") or ()),  # not there before version 2
    )

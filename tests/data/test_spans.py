"""Marked parts of answers: where they lie in tokens, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.data.spans import Span, read_spans, spans_of, token_marks
from diffpref.data.texts import TextColumns
from diffpref.models.decoders import tiny_tokenizer

BAD = Span(2, 5, severity=1, image=True)


def test_tokens_have_the_mark_of_the_span_that_they_overlap() -> None:
    pieces = ["a", "a black", "a black cat", "a black cat sat", "a black cat sat"]  # the last one ends the text
    marks = token_marks(pieces, "a black cat sat", [Span(2, 7, 2), Span(6, 9, 1, image=True)])
    assert marks == [(4, False), (1, True), (1, True), (4, False), (4, False)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [(" a cat", ["a", "a cat"]), ("a cat", [" a", " a cat"]), ("a cat", ["says: a", "says: a cat", "says: a cat."])],
)
def test_what_a_tokenizer_or_template_adds_or_drops_moves_no_mark(text: str, pieces: list[str]) -> None:
    place = text.index("cat")
    marks = token_marks(pieces, text, [Span(place, place + 3, severity=2)])
    assert marks[:2] == [(4, False), (2, False)] and set(marks[2:]) <= {(4, False)}


def test_the_bytes_of_a_letter_share_its_mark() -> None:
    tokenizer = tiny_tokenizer()
    text = "é ü"
    ids = tokenizer(text)["input_ids"]
    pieces = [tokenizer.decode(ids[: count + 1], skip_special_tokens=True) for count in range(len(ids))]
    marks = token_marks(pieces, text, [Span(2, 3, severity=1)])
    bytes_of = [severity for severity, _ in marks]
    assert bytes_of.count(1) == 2 and bytes_of.index(1) == next(k for k, piece in enumerate(pieces) if len(piece) == 3)


def test_tokens_that_read_as_something_else_are_told() -> None:
    with pytest.raises(DataError, match="read as 'a dog', so spans cannot be found"):
        token_marks(["a", "a dog"], "a cat", [BAD])


@pytest.mark.parametrize(
    "value",
    [
        "cat",
        [{"start": 0}],
        [{"start": 0, "end": 9}],
        [{"start": 3, "end": 3}],
        [{"start": 0, "end": 2, "severity": 5}],
        [{"start": 0, "end": 2, "severity": 1.5}],
        [{"start": 0, "end": 2, "kind": "image"}],
    ],
)
def test_what_is_no_span_is_told(value: Any) -> None:
    with pytest.raises(DataError, match="a span"):
        read_spans(value, "a cat")


def test_spans_are_read_from_a_record() -> None:
    meta = {"spans": json.dumps({"1": [{"start": 2, "end": 5, "severity": 1, "image": True}]})}
    record = Record("r", "p", (Candidate(text="a dog"), Candidate(text="a cat")), meta=meta)
    assert spans_of(record, 0) == () and spans_of(record, 1) == (BAD,)
    for broken in ("{", "[]"):
        with pytest.raises(DataError, match=r"meta\.spans must be JSON"):
            spans_of(Record("r", "p", record.candidates, meta={"spans": broken}), 0)


def test_a_table_holds_true_answers_and_spans() -> None:
    row = {
        "prompt": "what?",
        "gold": "a lynx",
        "chosen": "a cat",
        "rejected": "a dog",
        "rejected_spans": [{"start": 2, "end": 5, "severity": 1, "image": True}],
    }
    columns = TextColumns.find(list(row), None, Path(), "data")
    record = columns.record(row, "0", "row 0", "table")
    assert [c.text for c in record.candidates] == ["a cat", "a dog", "a lynx"] and record.meta["gold"] == "2"
    assert spans_of(record, 1) == (BAD,) and spans_of(record, 0) == ()
    without = columns.record({**row, "gold": None, "rejected_spans": None}, "0", "row 0", "table")
    assert len(without.candidates) == 2 and not without.meta
    with pytest.raises(DataError, match="row 0: column 'rejected_spans': a span"):
        columns.record({**row, "rejected_spans": [{"start": 2, "end": 50}]}, "0", "row 0", "table")

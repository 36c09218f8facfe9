"""Parts of an answer that somebody marked: how bad an error there is, and whether the picture was misread.

A record keeps them in ``meta["spans"]``, as JSON: candidate -> ``[{"start": 0, "end": 12, "severity": 1, "image":
true}]``, in characters of the candidate's text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError

__all__ = ["CORRECT", "SPANS", "Span", "read_spans", "spans_of", "token_marks"]

SPANS = "spans"
"""Key of a record's meta."""
CORRECT = 4
"""The severity of what is right; 1 is the worst."""
BROKEN = "\ufffd"
"""What stands where the bytes of a letter are not all there."""


@dataclass(frozen=True)
class Span:
    """A marked part of a text.

    Args:
        start: its first character.
        end: the one after its last.
        severity: 1 (worst) to 4 (right).
        image: whether the error is of reading the picture.
    """

    start: int
    end: int
    severity: int = CORRECT
    image: bool = False


def read_spans(value: Any, text: str) -> tuple[Span, ...]:
    """Read spans as data hold them.

    Args:
        value: a list of objects with start, end and perhaps severity and image.
        text: that they are of.

    Raises:
        DataError: something else stands there, or it lies outside the text.
    """
    found = []
    for one in value if isinstance(value, list | tuple) else [value]:
        told = {k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else {}
        whole = all(type(told.get(k, 1)) is int for k in ("start", "end", "severity"))
        known = {"start", "end"} <= told.keys() <= {"start", "end", "severity", "image"}
        if not (known and whole and isinstance(told.get("image", False), bool)):
            raise DataError(
                f"a span is {{start, end, severity (1 to 4), image (true or false)}}, got {str(one)[:80]!r}"
            )
        span = Span(**told)
        if not 0 <= span.start < span.end <= len(text) or not 1 <= span.severity <= CORRECT:
            raise DataError(
                f"a span lies within the {len(text)} characters of its text, start before end, with a severity from 1"
                f" to 4; got {span.start} to {span.end}, severity {span.severity}"
            )
        found.append(span)
    return tuple(found)


def spans_of(record: Record, number: int) -> tuple[Span, ...]:
    """Return the marked parts of a candidate.

    Raises:
        DataError: what stands there are no spans of its text.
    """
    told = record.meta.get(SPANS)
    if told is None:
        return ()
    try:
        found = json.loads(told)
    except json.JSONDecodeError as error:
        raise DataError(f"meta.{SPANS} must be JSON: candidate -> spans ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"meta.{SPANS} must be JSON: candidate -> spans, got {told[:60]!r}")
    return read_spans(found.get(str(number), []), record.candidates[number].text or "")


def token_marks(pieces: Sequence[str], text: str, spans: Sequence[Span]) -> list[tuple[int, bool]]:
    """Return severity and whether the picture was misread for each token of an answer.

    A token has the mark of the span that it overlaps, of several the worst. What adds no characters (the end of the
    text) or lies outside every span is right.

    Args:
        pieces: what the tokens up to and with each one read as: the last is the whole completion.
        text: the answer, which the whole completion contains.
        spans: of the text.

    Raises:
        DataError: the tokens do not read as the answer.

    >>> token_marks(["a", "a ca", "a cat"], "a cat", [Span(2, 5, severity=1, image=True)])
    [(4, False), (1, True), (1, True)]
    """
    whole = pieces[-1] if pieces else ""
    shown = text.strip()
    begin = whole.find(shown) - (len(text) - len(text.lstrip()))  # a tokenizer may drop the space before a text
    if shown not in whole:
        raise DataError(f"the tokens of {text[:40]!r} read as {whole[:40]!r}, so spans cannot be found in them")
    marks, start = [], 0
    for piece in pieces:
        end = len(piece)
        over = [span for span in spans if max(start, span.start + begin) < min(end, span.end + begin)]
        marks.append((min((s.severity for s in over), default=CORRECT), any(s.image for s in over)))
        start = len(piece.rstrip(BROKEN))  # the bytes of one letter may be several tokens
    return marks

"""What the columns of a user's table mean: which of them hold prompt, pictures, labels and scores, and of what type.

A meaning has usual names, and a recipe may name another column (``data.columns: {prompt: text_en, first: jpg_0}``).
The meanings that are there decide the layout: chosen and rejected; two pictures and the probability that the first is
better; several pictures with scores; one picture. A picture may be a clip: a file, or a list of its frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record, Score
from diffpref.core.errors import DataError, suggest
from diffpref.data.clips import candidate_bytes, candidate_source
from diffpref.data.footage import pack_frames, with_speed
from diffpref.data.kinds import IMAGES

__all__ = ["LAYOUTS", "MAX_PROMPT", "MEANINGS", "PROMPT_CHANGED", "Columns", "clean_prompt"]

MEANINGS = {
    "prompt": ("prompt", "caption", "text"),
    "id": ("id", "__key__"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "first": ("first", "jpg_0", "image_0", "video_0"),
    "second": ("second", "jpg_1", "image_1", "video_1"),
    "probability": ("probability", "label_0"),
    "images": ("images", "videos"),
    "scores": ("scores",),
    "image": ("image", "file_name", "video"),
    "inputs": ("inputs",),
    "weight": ("weight",),
    "annotator": ("annotator",),
    "fps": ("fps",),  # of clips that do not tell it themselves: arrays, frames
    "label": ("desirable",),  # a column "label" is too often a class
}
"""Meaning -> the names that a column of it usually has."""
LAYOUTS = (
    ("prompt", "chosen", "rejected"),
    ("prompt", "first", "second", "probability"),
    ("prompt", "images", "scores"),
    ("prompt", "image", "label"),
    ("prompt", "image"),
)
"""The sets of meanings that make a record; the first that is there is taken."""
MAX_PROMPT = 10_000
"""Characters of a prompt; text encoders read 77 to 512 tokens."""
PROMPT_CHANGED = "prompt_changed"
"""Key of a record's meta, where its prompt is not what the source holds."""
_PICTURE = "image bytes, a path, or {bytes, path}"
_CLIP = f"{_PICTURE}, of a clip perhaps a list of frames"


def clean_prompt(prompt: str) -> tuple[str, str]:
    """Return a prompt that every text encoder, log and plot takes, and what was changed ("" for nothing).

    Halves of characters that UTF-8 has no bytes for become the replacement character; what is beyond `MAX_PROMPT`
    characters is cut. Everything else stays: nothing is stripped, folded or translated.
    """
    cut = prompt[:MAX_PROMPT]
    whole = cut if _encodes(cut) else "".join(letter if _encodes(letter) else "\ufffd" for letter in cut)
    changes = [f"cut to {MAX_PROMPT:,} characters"] * (cut != prompt) + ["half characters replaced"] * (whole != cut)
    return whole, ", ".join(changes)


class _Problems:
    """What is wrong with a row, column by column."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row, self.found = row, []  # type: Mapping[str, Any], list[str]

    def take(self, column: str, expected: str, read: Callable[[Any], Any]) -> Any:
        """Return ``read`` of a column; where that is None, note that something else was expected."""
        value = self.row.get(column)
        result = None if value is None else read(value)
        if result is None:
            given = "nothing" if value is None else _short(value)
            self.found.append(f"column '{column}': expected {expected}, got {given}")
        return result


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        text = "..."
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


@dataclass(frozen=True)
class Columns:
    """Which column has which meaning in one table.

    Args:
        names: meaning -> column.
        folder: relative paths of pictures are seen from it.
    """

    names: Mapping[str, str]
    folder: Path

    @classmethod
    def find(cls, there: Collection[str], wanted: Mapping[str, str] | None, folder: Path, where: str) -> Columns:
        """Match the columns of a table.

        Args:
            there: columns of the table.
            wanted: meaning -> column, as a recipe gives it; other meanings are looked for under their usual names.
            folder: of the table.
            where: the table's name, for an error.

        Raises:
            DataError: a column that was named is absent, or no layout is complete; it lists what is there.
        """
        found = ", ".join(sorted(there)) or "nothing"
        for meaning, column in (wanted or {}).items():
            if meaning not in MEANINGS:
                raise DataError(
                    f"data.columns: unknown '{meaning}'{suggest(meaning, MEANINGS)}; known: {', '.join(MEANINGS)}"
                )
            if column not in there:
                raise DataError(f"{where}: no column '{column}' (data.columns.{meaning}); found: {found}")
        names = dict(wanted or {})
        for meaning, usual in MEANINGS.items():
            if match := [name for name in usual if name in there and name not in (wanted or {}).values()]:
                names.setdefault(meaning, match[0])
        complete = [layout for layout in LAYOUTS if set(layout) <= set(names)]
        asked = set(wanted or {}) - {"prompt"}
        complete.sort(key=lambda layout: not asked & set(layout))  # what was named comes first
        if not complete:
            begun = [layout for layout in LAYOUTS if set(layout[1:]) & set(names)] or LAYOUTS[:1]
            nearest = min(begun, key=lambda layout: len(set(layout) - set(names)))
            missing = ", ".join(meaning for meaning in nearest if meaning not in names)
            raise DataError(
                f"{where}: no column {missing}; needed are prompt (text), chosen and rejected (image bytes or paths);"
                " or prompt, first, second and probability; or prompt, images and scores; or prompt and image; other"
                f" names are told by data.columns; found: {found}"
            )
        unused = {meaning for layout in LAYOUTS for meaning in layout} - set(complete[0])
        if ignored := sorted(asked & unused):
            raise DataError(
                f"{where}: data.columns.{ignored[0]} goes with {_beside(ignored[0])}, and not with"
                f" {', '.join(complete[0])}, which are there; leave it out, or name the others"
            )
        return cls({meaning: column for meaning, column in names.items() if meaning not in unused}, folder)

    def record(self, row: Any, identity: str, where: str, source: str) -> Record:
        """Return the record of a row.

        Args:
            row: column -> value.
            identity: the record's id unless the row has one.
            where: the row's name, for an error.
            source: of the record.

        Raises:
            DataError: it lists every column that does not hold what it should.
        """
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where}: expected an object with the columns {', '.join(self.names.values())}, got {_short(row)}"
            )
        problems = _Problems(row)
        prompt = problems.take(self.names["prompt"], "a text", lambda value: value if isinstance(value, str) else None)
        candidates, probability = self._candidates(problems)
        given = {
            meaning: self._optional(problems, meaning) for meaning in ("id", "weight", "annotator", "inputs", "fps")
        }
        if problems.found:
            raise DataError(f"{where}: {'; '.join(problems.found)}")
        text, changed = clean_prompt(prompt)
        weight = {} if given["weight"] is None else {"weight": given["weight"]}
        judgement = (
            () if probability is None else (Judgement(0, 1, probability, annotator=given["annotator"] or "", **weight),)
        )
        return Record(
            id=identity if given["id"] is None else given["id"],
            prompt=text,
            candidates=candidates if given["fps"] is None else tuple(_at(given["fps"], one) for one in candidates),
            judgements=judgement,
            source=source,
            meta={PROMPT_CHANGED: changed} if changed else {},
            inputs=given["inputs"] or (),
        )

    def _candidates(self, problems: _Problems) -> tuple[tuple[Candidate, ...], float | None]:
        """Return the pictures of a row, and the probability that the first of two is better where that is told."""
        names = self.names
        if "images" in names:
            pictures = problems.take(names["images"], f"a list of pictures ({_CLIP})", self._clips) or ()
            expected = (
                f"a list of {len(pictures)} numbers, one a picture (null: none)" if pictures else "a list of numbers"
            )
            scores = problems.take(names["scores"], expected, lambda v: _scores(v, len(pictures)))
            told = scores or [None] * len(pictures)
            name = names["scores"]
            return tuple(
                Candidate(bytes=one.bytes, path=one.path, scores=() if value is None else (Score(name, "", value),))
                for one, value in zip(pictures, told, strict=False)
            ), None
        sides = [side for side in ("chosen", "rejected", "first", "second", "image") if side in names]
        pictures = [problems.take(names[side], _CLIP, self._clip) for side in sides]
        probability = 1.0 if "chosen" in names else None
        if "probability" in names:
            probability = problems.take(names["probability"], "a number from 0 to 1", lambda v: _number(v, 0.0, 1.0))
        found = tuple(picture for picture in pictures if picture is not None)
        return self._labelled(problems, found), probability

    def _labelled(self, problems: _Problems, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Return the one picture with its label, where one is told."""
        if "label" not in self.names:
            return candidates
        label = problems.take(self.names["label"], "true, false, 1 or 0", _flag)
        return tuple(replace(candidate, label=label) for candidate in candidates)

    def _optional(self, problems: _Problems, meaning: str) -> Any:
        if meaning not in self.names or problems.row.get(self.names[meaning]) is None:
            return None
        expected, read = {
            "id": ("a text or a whole number", _name),
            "weight": ("a number >= 0", lambda v: _number(v, 0.0, math.inf)),
            "annotator": ("a text or a whole number", _name),
            "fps": ("a number > 0", lambda v: _number(v, 1e-3, 1e6)),
            "inputs": (f"a list of pictures ({_PICTURE})", self._media),
        }[meaning]
        return problems.take(self.names[meaning], expected, read)

    def _picture(self, value: Any) -> Candidate | None:
        given = (
            value if isinstance(value, Mapping) else {"bytes": value} if isinstance(value, bytes) else {"path": value}
        )
        data, path = given.get("bytes"), given.get("path")
        if isinstance(data, bytes) and data:
            return Candidate(bytes=data)
        if isinstance(path, str) and path and "\0" not in path and _encodes(path):
            return Candidate(path=str(self.folder / path))
        return None

    def _clip(self, value: Any) -> Candidate | None:
        """Read a picture, or a clip that is one file, or one that is a list of frames."""
        if not isinstance(value, list | tuple):
            return self._picture(value)
        frames = self._pictures(value)
        if not frames:
            return None
        return Candidate(bytes=pack_frames([(_suffix(frame), candidate_bytes(frame)) for frame in frames]))

    def _clips(self, value: Any) -> tuple[Candidate, ...] | None:
        if not isinstance(value, list | tuple):
            return None
        found = [self._clip(one) for one in value]
        return None if None in found else tuple(one for one in found if one is not None)

    def _pictures(self, value: Any) -> tuple[Candidate, ...] | None:
        if not isinstance(value, list | tuple):
            return None
        found = [self._picture(one) for one in value]
        return None if None in found else tuple(one for one in found if one is not None)

    def _media(self, value: Any) -> tuple[PromptMedia, ...] | None:
        found = self._pictures(value if isinstance(value, list | tuple) else [value])
        return None if found is None else tuple(PromptMedia(bytes=one.bytes, path=one.path) for one in found)


def _beside(meaning: str) -> str:
    return " or ".join(", ".join(m for m in layout if m != meaning) for layout in LAYOUTS if meaning in layout)


def _suffix(frame: Candidate) -> str:
    suffix = Path(frame.path or "").suffix[1:].lower()
    return suffix if suffix in IMAGES else "png"  # whatever it is called, it is opened by what it holds


def _at(fps: float, candidate: Candidate) -> Candidate:
    """Return a clip that tells its speed; one that does so itself, and a picture, as they are."""
    packed = with_speed(candidate_source(candidate), fps)
    return candidate if packed is None else replace(candidate, bytes=packed, path=None)


def _flag(value: Any) -> float | None:
    return float(value) if value in (0, 1) and isinstance(value, bool | int | float) else None


def _encodes(text: str) -> bool:
    """Whether UTF-8 has bytes for a text: not so for half a pair of surrogates, which JSON can spell."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _name(value: Any) -> str | None:
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else None
    return value if isinstance(value, str) and _encodes(value) else None


def _number(value: Any, low: float, high: float) -> float | None:
    if not isinstance(value, int | float) or abs(value) > 1e300 or not low <= value <= high:
        return None
    return float(value)


def _scores(value: Any, count: int) -> list[float | None] | None:
    """Read one score a picture; None for a picture without, NaN stays and is counted where pairs are made."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    if not all(one is None or isinstance(one, float) or (isinstance(one, int) and abs(one) < 2**53) for one in value):
        return None
    return [None if one is None else float(one) for one in value]

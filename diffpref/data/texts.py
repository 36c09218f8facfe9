"""Texts as records, in the formats of TRL's datasets, and back: what a language model is asked to read and predict.

Plain texts or messages of a conversation; a prompt of its own, or one that is the common beginning of both answers;
pairs (chosen, rejected), unpaired answers (completion, label), answers with scores (completions, scores), or answers
alone (completion).

A conversation's messages are kept in a record's ``meta["messages"]``, and its prompt is then the last message, for
people and logs. An answer of a single assistant message is that message's text; others are kept as JSON, and
``meta["answers"]`` says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record, Score
from diffpref.core.errors import DataError, suggest
from diffpref.data.spans import SPANS, read_spans

__all__ = ["LAYOUTS", "MEANINGS", "Text", "TextColumns", "answer_of", "common_prompt", "prompt_of", "template_of"]

Text: TypeAlias = str | list[dict[str, Any]]

MEANINGS = {
    "prompt": ("prompt", "question", "instruction"),
    "id": ("id", "prompt_id"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "chosen_score": ("chosen_score", "score_chosen"),
    "rejected_score": ("rejected_score", "score_rejected"),
    "probability": ("probability",),
    "gold": ("gold",),
    "chosen_spans": ("chosen_spans",),
    "rejected_spans": ("rejected_spans",),
    "completion": ("completion", "response"),
    "label": ("label",),
    "completions": ("completions", "responses"),
    "scores": ("scores", "rewards"),
    "tools": ("tools",),
    "images": ("images", "image"),
    "weight": ("weight",),
    "annotator": ("annotator",),
}
"""Meaning -> the names that a column of it usually has."""
SIDES = ("chosen", "rejected")
LAYOUTS = (
    ("chosen", "rejected"),
    ("prompt", "completions", "scores"),
    ("prompt", "completion", "label"),
    ("prompt", "completion"),
)
"""The sets of meanings that make a record; the first that is there is taken. Pairs may do without a prompt."""
BESIDE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("chosen", "rejected"): (
        "prompt",
        "chosen_score",
        "rejected_score",
        "probability",
        "gold",
        *(f"{side}_spans" for side in SIDES),
    ),
}
ALWAYS = ("id", "tools", "images", "weight", "annotator")
MESSAGES, ANSWERS, TOOLS, GOLD = "messages", "answers", "tools", "gold"
"""Keys of a record's meta."""
SCORE = "score"
"""The name of scores that a table gives."""


def prompt_of(record: Record) -> Text:
    """Return the prompt that a model reads: a text, or messages."""
    found = record.meta.get(MESSAGES)
    return record.prompt if found is None else json.loads(found)


def answer_of(record: Record, number: int) -> Text:
    """Return a candidate as a model is to say it, in the form of the record's prompt.

    Raises:
        DataError: the candidate holds no text.
    """
    text = record.candidates[number].text
    if text is None:
        raise DataError(
            f"record {record.id!r}, candidate {number}: is no text, and a language model reads nothing else"
        )
    if MESSAGES not in record.meta:
        return text
    return json.loads(text) if ANSWERS in record.meta else [{"role": "assistant", "content": text}]


def template_of(record: Record) -> dict[str, Any]:
    """Return what the chat template is told besides the messages."""
    return {"tools": json.loads(record.meta[TOOLS])} if TOOLS in record.meta else {}


def common_prompt(chosen: Text, rejected: Text) -> Text:
    """Return the longest common beginning of two answers, in characters or messages.

    As in TRL, a text does not end with the space before the first word that differs.

    >>> common_prompt("The sky is blue.", "The sky is green.")
    'The sky is'
    """
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    if isinstance(chosen, str) and 0 < count < min(len(chosen), len(rejected)) and chosen[count - 1] == " ":
        count -= 1
    return chosen[:count]


@dataclass(frozen=True)
class TextColumns:
    """Which column has which meaning in one table of texts.

    Args:
        names: meaning -> column.
        folder: relative paths of pictures are seen from it.
    """

    names: Mapping[str, str]
    folder: Path = Path()

    @classmethod
    def find(cls, there: Collection[str], wanted: Mapping[str, str] | None, folder: Path, where: str) -> TextColumns:
        """Match the columns of a table; see `diffpref.data.columns.Columns.find`.

        Raises:
            DataError: a column that was named is absent, or no layout is complete; it lists what is there.
        """
        found = ", ".join(sorted(there)) or "nothing"
        for meaning, column in (wanted or {}).items():
            if meaning not in MEANINGS:
                raise DataError(
                    f"data.columns: unknown '{meaning}'{suggest(meaning, MEANINGS) or ';'} known: {', '.join(MEANINGS)}"
                )
            if column not in there:
                raise DataError(f"{where}: no column '{column}' (data.columns.{meaning}); found: {found}")
        names = dict(wanted or {})
        for meaning, usual in MEANINGS.items():
            if match := [name for name in usual if name in there and name not in (wanted or {}).values()]:
                names.setdefault(meaning, match[0])
        for layout in LAYOUTS:
            if set(layout) <= set(names):
                kept = {*layout, *BESIDE.get(layout, ()), *ALWAYS}
                return cls({meaning: column for meaning, column in names.items() if meaning in kept}, folder)
        raise DataError(
            f"{where}: no texts to learn from; needed are chosen and rejected (with a prompt, or beginning with it); or"
            " prompt, completion and label; or prompt, completions and scores; or prompt and completion; other names"
            f" are told by data.columns; found: {found}"
        )

    def record(self, row: Any, identity: str, where: str, source: str) -> Record:
        """Return the record of a row.

        Args:
            row: column -> value.
            identity: the record's id unless the row has one.
            where: the row's name, for an error.
            source: of the record.

        Raises:
            DataError: a column does not hold what it should.
        """
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected an object with the columns {', '.join(self.names.values())}")
        given = _Row(row, self.names, where)
        prompt, answers, scores, labels, judgements = self._layout(given)
        meta: dict[str, str] = {}
        texts: list[str] = []
        if isinstance(prompt, str):
            shown = prompt
            for answer in answers:
                if not isinstance(answer, str):
                    raise DataError(f"{where}: the prompt is a text and an answer holds messages; give both alike")
                texts.append(answer)
        else:
            meta[MESSAGES] = json.dumps(prompt, ensure_ascii=False)
            shown = _words(prompt[-1].get("content")) if prompt else ""
            conversations = [answer if not isinstance(answer, str) else None for answer in answers]
            if None in conversations:
                raise DataError(f"{where}: the prompt holds messages and an answer is a text; give both alike")
            single = all(c and len(c) == 1 and set(c[0]) == {"role", "content"} for c in conversations)
            single = single and all(c[0]["role"] == "assistant" for c in conversations if c)
            if not single:
                meta[ANSWERS] = MESSAGES
            texts = [str(c[0]["content"]) if single and c else json.dumps(c, ensure_ascii=False) for c in conversations]
        if (tools := given.optional("tools")) is not None:
            meta[TOOLS] = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
        if len(answers) > len(SIDES) and "chosen" in self.names:
            meta[GOLD] = str(len(SIDES))
        if marked := given.spans(texts):
            meta[SPANS] = json.dumps(marked)
        candidates = tuple(
            Candidate(
                text=text,
                scores=() if score is None else (Score(self.names.get("scores", SCORE), "", score),),
                label=label,
            )
            for text, score, label in zip(texts, scores, labels, strict=True)
        )
        name = given.optional("id")
        return Record(
            identity if name is None else str(name),
            shown,
            candidates,
            judgements,
            source,
            meta,
            given.pictures(self.folder),
        )

    def _layout(
        self, row: _Row
    ) -> tuple[Text, list[Text], list[float | None], list[float | None], tuple[Judgement, ...]]:
        """Return prompt, answers, scores, labels and judgements."""
        if "chosen" in self.names:
            chosen, rejected = row.text("chosen"), row.text("rejected")
            prompt = row.text("prompt") if "prompt" in self.names else None
            if prompt is None or isinstance(prompt, str) != isinstance(chosen, str):
                prompt = common_prompt(chosen, rejected)
                chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
            scores = [row.number(f"{side}_score") for side in SIDES]
            gold = [row.text("gold")] if row.optional("gold") is not None else []
            probability = row.number("probability", 0.0, 1.0)
            weight, annotator = row.number("weight", 0.0), row.optional("annotator")
            judgement = Judgement(
                0,
                1,
                1.0 if probability is None else probability,
                1.0 if weight is None else weight,
                "" if annotator is None else str(annotator),
            )
            more: list[None] = [None] * len(gold)
            return prompt, [chosen, rejected, *gold], [*scores, *more], [None, None, *more], (judgement,)
        if "completions" in self.names:
            answers = row.texts("completions")
            return row.text("prompt"), answers, row.numbers("scores", len(answers)), [None] * len(answers), ()
        return row.text("prompt"), [row.text("completion")], [None], [row.number("label", 0.0, 1.0)], ()


class _Row:
    """A row, read column by column by meaning."""

    def __init__(self, row: Mapping[str, Any], names: Mapping[str, str], where: str) -> None:
        self.row, self.names, self.where = row, names, where

    def _fail(self, meaning: str, expected: str, value: Any) -> DataError:
        given = "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        return DataError(f"{self.where}: column '{self.names[meaning]}': expected {expected}, got {given}")

    def optional(self, meaning: str) -> Any:
        return self.row.get(self.names[meaning]) if meaning in self.names else None

    def text(self, meaning: str) -> Text:
        value = self.optional(meaning)
        text = _text(value)
        if text is None:
            raise self._fail(meaning, "a text or messages ({role, content})", value)
        return text

    def texts(self, meaning: str) -> list[Text]:
        value = self.optional(meaning)
        found = [_text(one) for one in value] if isinstance(value, list | tuple) else []
        kept = [one for one in found if one is not None]
        if not found or len(kept) < len(found):
            raise self._fail(meaning, "a list of texts, or of lists of messages", value)
        return kept

    def pictures(self, folder: Path) -> tuple[PromptMedia, ...]:
        """Read the pictures of a prompt: one or a list of them, each a path, bytes, or {bytes, path}."""
        value = self.optional("images")
        if value is None:
            return ()
        found = []
        for one in value if isinstance(value, list | tuple) else [value]:
            told = one if isinstance(one, Mapping) else {"bytes": one} if isinstance(one, bytes) else {"path": one}
            data, path = told.get("bytes"), told.get("path")
            if isinstance(data, bytes) and data:
                found.append(PromptMedia(bytes=data))
            elif isinstance(path, str) and path and "\0" not in path and _encodes(path):
                found.append(PromptMedia(path=str(folder / path)))
            else:
                raise self._fail("images", "pictures: paths, bytes, or {bytes, path}", one)
        return tuple(found)

    def spans(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the marked parts of both sides: candidate -> spans."""
        found = {}
        for number, side in enumerate(SIDES):
            if value := self.optional(f"{side}_spans"):
                try:
                    found[str(number)] = [vars(span) for span in read_spans(value, texts[number])]
                except DataError as error:
                    raise DataError(f"{self.where}: column '{self.names[f'{side}_spans']}': {error}") from error
        return found

    def number(self, meaning: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        value = self.optional(meaning)
        if value is None:
            return None
        if not isinstance(value, int | float) or not low <= value <= high:
            limits = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
            raise self._fail(meaning, f"a number{limits}", value)
        return float(value)

    def numbers(self, meaning: str, count: int) -> list[float | None]:
        value = self.optional(meaning)
        good = isinstance(value, list | tuple) and len(value) == count
        if not good or not all(one is None or isinstance(one, int | float) for one in value):
            raise self._fail(meaning, f"a list of {count} numbers, one an answer (null: none)", value)
        return [None if one is None else float(one) for one in value]


def _words(content: Any) -> str:
    """Return the words of a message's content: a text, or the texts among its parts."""
    if isinstance(content, list | tuple):
        return " ".join(str(part["text"]) for part in content if isinstance(part, Mapping) and part.get("text"))
    return str(content or "")


def _text(value: Any) -> Text | None:
    """Read a text, or messages without what is null in them; None for anything else."""
    if isinstance(value, str):
        return value if _encodes(value) else "".join(letter if _encodes(letter) else "\ufffd" for letter in value)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return None
    if not all(isinstance(one, Mapping) and isinstance(one.get("role"), str) for one in value):
        return None
    return [{key: part for key, part in one.items() if part is not None} for one in value]


def _encodes(text: str) -> bool:
    """Whether UTF-8 has bytes for a text: not so for half a pair of surrogates, which JSON can spell."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)

"""Captions of single candidates: their kinds, and the items that are shown under them instead of the prompt.

A candidate carries any number of captions, told apart by their kind. The kinds that the library makes (``diffpref
caption``) are a captioner's, ``generated`` unless it is named otherwise, and paraphrases, whose kind is that of what
was paraphrased and a level: ``generated_60`` is the generated caption with about 60 % of its words changed, and
``prompt_60`` the record's prompt. ``prompt`` itself is there without being stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.data.items import Item

__all__ = ["GENERATED", "PROMPT", "caption_of", "paraphrase_kind", "with_captions"]

PROMPT, GENERATED = "prompt", "generated"


def paraphrase_kind(kind: str, level: int) -> str:
    """Return the kind of a caption that was paraphrased.

    Args:
        kind: of what it was made of.
        level: share of words that a paraphrase is to change, in percent; DCPO's weak, medium and strong are 40, 60, 80.

    >>> paraphrase_kind("prompt", 40)
    'prompt_40'
    """
    return f"{kind}_{level}"


def caption_of(record: Record, candidate: int, kind: str) -> str | None:
    """Return a candidate's caption of a kind, the first where there are several; None where it has none."""
    if kind == PROMPT:
        return record.prompt
    return next((caption.text for caption in record.candidates[candidate].captions if caption.kind == kind), None)


def with_captions(
    records: Sequence[Record], items: Sequence[Item], kinds: Mapping[str, str], source: str = "STORE"
) -> Sequence[Item]:
    """Return items that tell under which caption each group is shown.

    Args:
        records: of the source.
        items: of a view of them.
        kinds: group -> kind; groups that are not named are shown under the prompt.
        source: where the records lie, for the message.

    Raises:
        DataError: a candidate has no caption of its kind; it says how many, what there is, and the command that makes
            them.
        ConfigError: a group of several candidates.
    """
    if not kinds:
        return items
    found: list[Any] = []
    missing: Counter[tuple[str, str]] = Counter()
    for item in items:
        record, told = records[item.record_index], {}
        for group, kind in kinds.items():
            number = item.groups[group]
            if not isinstance(number, int):
                raise ConfigError(f"captions: those of '{group}', which are several candidates, cannot differ yet")
            text = caption_of(record, number, kind)
            if not text:
                missing[group, kind] += 1
            told[group] = text or ""
        found.append(replace(item, captions=told))  # type: ignore[type-var]
    if missing:
        raise DataError(_missing(records, len(items), missing, source))
    return found


def _missing(records: Sequence[Record], total: int, missing: Mapping[tuple[str, str], int], source: str) -> str:
    lacking = "; ".join(
        f"{count} of {total} {group} candidates have no caption of kind '{kind}'"
        for (group, kind), count in sorted(missing.items())
    )
    there = Counter(caption.kind for record in records for one in record.candidates for caption in one.captions)
    held = ", ".join(f"{kind} ({count})" for kind, count in sorted(there.items())) or "none"
    command = f"diffpref caption captions/rules --source {source} --output FOLDER"
    return f"data.source: {lacking}; captions there are: {held}; '{command}' makes a copy that has them"

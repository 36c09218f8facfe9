"""Where prompts come from: a list, a text file, JSONL, captions of still and moving shapes, the words world's tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError, suggest
from diffpref.core.randomness import Random
from diffpref.shapes.grammar import SPLITS, captions
from diffpref.shapes.motion import SPLITS as MOVING_SPLITS
from diffpref.shapes.motion import moving_captions
from diffpref.words.grammar import SPLITS as WORD_SPLITS
from diffpref.words.grammar import instructions

__all__ = ["load_prompts", "prompts_with_fields"]

_EXPECTED = (
    "a text file (one a line), a .jsonl file with 'prompt', shapes:SPLIT[:COUNT | :START-STOP],"
    " shapes_moving:SPLIT[:COUNT | :START-STOP] or words:SPLIT:COUNT"
)


def load_prompts(source: str | Path | Sequence[str]) -> list[str]:
    """Return prompts in the order of their source, duplicates and all.

    Args:
        source: the prompts themselves; a text file with one a line (empty lines are left out); a ``.jsonl`` file whose
            lines are objects with ``prompt``; or ``shapes:unseen``, ``shapes:unseen:300`` (the first 300 of a fixed
            shuffled order), ``shapes:unseen:300-500`` (those after them, so that no prompt is in both); or, alike,
            ``shapes_moving:unseen:20`` of the world of moving shapes; or ``words:unseen:300`` and
            ``words:unseen:300-500``, of which there is no end.

    Raises:
        DataError: no such file or split, a line that is no prompt, or no prompts at all; the message names the line.
    """
    return [prompt for prompt, _ in prompts_with_fields(source)]


def prompts_with_fields(source: str | Path | Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return what `load_prompts` does, each with the other fields of its line if the source is a ``.jsonl`` file."""
    if isinstance(source, str) and source.startswith("shapes:"):
        return [(prompt, {}) for prompt in _shapes(source)]
    if isinstance(source, str) and source.startswith("shapes_moving:"):
        return [(prompt, {}) for prompt in _moving(source)]
    if isinstance(source, str) and source.startswith("words:"):
        return [(prompt, {}) for prompt in _words(source)]
    found: Iterator[tuple[int, object, dict[str, Any]]]
    if isinstance(source, str | Path):
        where, found = str(source), _from_file(Path(source))
    else:
        where, found = "prompts", ((number, prompt, {}) for number, prompt in enumerate(source, start=1))
    prompts = [(_checked(prompt, f"{where}, {number}"), fields) for number, prompt, fields in found]
    if not prompts:
        raise DataError(f"{where}: holds no prompts")
    return prompts


def _checked(prompt: object, where: str) -> str:
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{where}: a prompt must be a text that is not empty, got {prompt!r}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a prompt must be valid Unicode ({error.reason})") from error
    return prompt.strip()


def _from_file(path: Path) -> Iterator[tuple[int, object, dict[str, Any]]]:
    """Yield line numbers with what stands there, and the other fields of the line."""
    if not path.is_file():
        hint = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"prompts '{path}': {hint}; expected {_EXPECTED}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield number, line, {}
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, {number}: not JSON: {error}") from error
        if not isinstance(row, dict) or "prompt" not in row:
            listed = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{path}, {number}: no 'prompt'; found: {listed or 'nothing'}")
        yield number, row.pop("prompt"), row


def _shapes(source: str) -> list[str]:
    split, first, last = _split_of(source, "shapes", SPLITS)
    texts = [str(caption) for caption in captions(split)]
    if split == "held_out":  # the only split that the grammar lists in order, colour by colour
        texts = [texts[i] for i in Random(0).numpy("held-out prompts").permutation(len(texts))]
    return _range_of(source, split, texts, first, last)


def _moving(source: str) -> list[str]:
    split, first, last = _split_of(source, "shapes_moving", MOVING_SPLITS)
    return _range_of(source, split, [str(caption) for caption in moving_captions(split)], first, last)


def _split_of(source: str, world: str, splits: Sequence[str]) -> tuple[str, str | None, str | None]:
    """Return the split of WORLD:SPLIT[:COUNT | :START-STOP], and the numbers as they are written."""
    match = re.fullmatch(rf"{world}:([^:]*)(?::(\d+)(?:-(\d+))?)?", source, re.ASCII)
    if not match:
        told = ", ".join(f"{world}:SPLIT{part}" for part in ("", ":COUNT"))
        raise DataError(f"prompts '{source}': expected {told} or {world}:SPLIT:START-STOP")
    split = match[1]
    if split not in splits:
        hint = suggest(split, splits) or ";"
        raise DataError(f"prompts '{source}': unknown split '{split}'{hint} known: {', '.join(splits)}")
    return split, match[2], match[3]


def _range_of(source: str, split: str, texts: list[str], first: str | None, last: str | None) -> list[str]:
    start, stop = (int(first or 0), int(last)) if last else (0, int(first) if first else len(texts))
    if not start < stop <= len(texts):
        raise DataError(f"prompts '{source}': the split '{split}' has captions 0-{len(texts)}")
    return texts[start:stop]


def _words(source: str) -> list[str]:
    match = re.fullmatch(r"words:([^:]*):(\d+)(?:-(\d+))?", source, re.ASCII)
    if not match:
        raise DataError(f"prompts '{source}': expected words:SPLIT:COUNT or words:SPLIT:START-STOP")
    split, first, last = match.groups()
    if split not in WORD_SPLITS:
        hint = suggest(split, WORD_SPLITS) or ";"
        raise DataError(f"prompts '{source}': unknown split '{split}'{hint} known: {', '.join(WORD_SPLITS)}")
    start, stop = (int(first), int(last)) if last else (0, int(first))
    if not start < stop:
        raise DataError(f"prompts '{source}': holds no prompts")
    return [str(instruction) for instruction in instructions(split, stop)[start:]]

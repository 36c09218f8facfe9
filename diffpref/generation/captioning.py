"""Captions of candidates, added to a copy of their store: as resumable as anything that is generated.

A captioner sees each candidate with its prompt; a paraphraser says the prompt, or that caption, in other words at
several levels. What a candidate already has of a kind stays as it is, so that kinds can be added one after another.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from diffpref.core.contracts import Candidate, Caption, Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import hash_key
from diffpref.data import Store, caption_of, paraphrase_kind
from diffpref.data.captions import GENERATED, PROMPT
from diffpref.data.clips import read_media
from diffpref.generation.captioners import Captioner
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import GrowingStore
from diffpref.generation.paraphrasers import Paraphraser
from diffpref.generation.scoring import Progress

__all__ = ["CaptionSettings", "add_captions", "caption_store", "shortened"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class CaptionSettings:
    """What is asked of captioner and paraphraser.

    Args:
        seed: of the run.
        kind: of the captioner's captions.
        levels: of the paraphrases, percent of the words.
        paraphrased: kinds that are paraphrased; None: the prompt, and the captioner's where there is one.
        max_words: of a caption.
        on_empty: when nothing is said: stop, or take the prompt.
        batch_size: candidates at once.
        unit_size: records of one part.
    """

    seed: int = 0
    kind: str = GENERATED
    levels: tuple[int, ...] = (40, 60, 80)
    paraphrased: tuple[str, ...] | None = None
    max_words: int = 50
    on_empty: Literal["raise", "prompt"] = "raise"
    batch_size: int = 64
    unit_size: int = 256


def caption_store(
    store: Store,
    output: Path | str,
    captioner: Captioner | None = None,
    paraphraser: Paraphraser | None = None,
    settings: CaptionSettings | None = None,
    on_progress: Progress | None = None,
) -> Store:
    """Copy a store, with captions added. Several processes may share the work.

    Args:
        store: of pictures or clips; it is left as it is.
        output: folder of the new store; parts of an earlier run of the same store and settings are kept.
        captioner: any callable, see `diffpref.generation.captioners`; None: no captions of candidates.
        paraphraser: any callable, see `diffpref.generation.paraphrasers`; None: no paraphrases.
        settings: kinds, levels, seed.
        on_progress: called with (records there, records in all) at the start and after each part.

    Raises:
        ConfigError: neither of the two, or the output is the store itself.
        DataError: the folder was made otherwise, a picture is missing, or nothing was said of a candidate.
    """
    settings, output = settings or CaptionSettings(), Path(output)
    if captioner is None and paraphraser is None:
        raise ConfigError("neither a captioner nor a paraphraser; there is nothing to do")
    if output.resolve() == store.folder.resolve():
        raise ConfigError(f"{output} is the store that gets captions; choose another folder for the copy")
    size = settings.unit_size
    told = {name: value for name, value in asdict(settings).items() if name != "batch_size"}
    plan = {
        "kind": "captions",
        "store": store.digest,
        "made_by": store.manifest.get("generator", {}),
        "captioner": _identity(captioner),
        "paraphraser": _identity(paraphraser),
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()},
    }
    growing = GrowingStore(output, plan, -(-len(store) // size))

    def rows(number: int) -> range:
        return range(number * size, min((number + 1) * size, len(store)))

    def make(number: int) -> list[Record]:
        return add_captions([store[row] for row in rows(number)], captioner, paraphraser, settings)

    def tell(missing: Sequence[int]) -> None:
        if on_progress:
            on_progress(len(store) - sum(len(rows(number)) for number in missing), len(store))

    rank, num_ranks = share_of_work()
    growing.fill(make, tell, rank=rank, num_ranks=num_ranks)
    return growing.finish()


def _identity(who: object) -> str | None:
    """Return what decides on what is said: its own word for it, else its name."""
    if who is None:
        return None
    named = who if hasattr(who, "__qualname__") else type(who)
    return str(getattr(who, "identity", f"{named.__module__}.{named.__qualname__}"))


def add_captions(
    records: Sequence[Record],
    captioner: Captioner | None,
    paraphraser: Paraphraser | None,
    settings: CaptionSettings | None = None,
) -> list[Record]:
    """Return records whose candidates have a caption of every kind that is asked for.

    Raises:
        DataError: a candidate is no picture or clip, nothing was said of one, or one lacks what is to be paraphrased.
    """
    settings, found = settings or CaptionSettings(), list(records)
    if captioner is not None:
        found = _captioned(found, captioner, settings)
    if paraphraser is not None:
        kinds = settings.paraphrased or (PROMPT, *([settings.kind] if captioner is not None else []))
        for kind in kinds:
            for level in settings.levels:
                found = _paraphrased(found, paraphraser, settings, kind, level)
    return found


def _captioned(records: Sequence[Record], captioner: Captioner, settings: CaptionSettings) -> list[Record]:
    todo = _lacking(records, settings.kind)

    def ask(part: Sequence[tuple[int, int]]) -> Sequence[str]:
        media = [read_media(records[row].candidates[place], name=_name(records[row], place)) for row, place in part]
        seeds = [hash_key(settings.seed, "caption", records[row].id, place) for row, place in part]
        return captioner(media, [records[row].prompt for row, _ in part], seeds)

    said = _in_parts(todo, ask, settings.batch_size, "captioner")
    texts = {key: shortened(text, settings.max_words) for key, text in zip(todo, said, strict=True)}
    return _added(records, settings, settings.kind, texts)


def _paraphrased(
    records: Sequence[Record], paraphraser: Paraphraser, settings: CaptionSettings, kind: str, level: int
) -> list[Record]:
    """Add paraphrases of a kind. What is the same text in several places is said anew once."""
    todo = _lacking(records, paraphrase_kind(kind, level))
    sources: dict[tuple[int, int], str] = {}
    for row, place in todo:
        text = caption_of(records[row], place, kind)
        if not text:
            raise DataError(
                f"{_name(records[row], place)}: has no caption of kind '{kind}', which is to be paraphrased; name a"
                " captioner, or other kinds in paraphrased"
            )
        sources[row, place] = text
    different = list(dict.fromkeys(sources.values()))

    def ask(part: Sequence[str]) -> Sequence[str]:
        return paraphraser(part, level, [hash_key(settings.seed, "paraphrase", text, level) for text in part])

    said = _in_parts(different, ask, settings.batch_size, "paraphraser")
    anew = {text: shortened(new, settings.max_words) for text, new in zip(different, said, strict=True)}
    if same := sum(text == new for text, new in anew.items()):
        logger.warning("paraphrases at level %d: %d of %d say what they were made of", level, same, len(anew))
    texts = {key: anew[text] for key, text in sources.items()}
    return _added(records, settings, paraphrase_kind(kind, level), texts)


def _lacking(records: Sequence[Record], kind: str) -> list[tuple[int, int]]:
    """Return (record, candidate) of those that have no caption of a kind."""
    return [
        (row, place)
        for row, record in enumerate(records)
        for place in range(len(record.candidates))
        if caption_of(record, place, kind) is None
    ]


def _in_parts(items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[str]], size: int, who: str) -> list[str]:
    said: list[str] = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        answers: Any = list(ask(part))
        if len(answers) != len(part) or not all(isinstance(answer, str) for answer in answers):
            raise DataError(f"the {who} was asked for {len(part)} texts and gave {len(answers)} answers, or no texts")
        said += answers
    return said


def _added(
    records: Sequence[Record], settings: CaptionSettings, kind: str, texts: dict[tuple[int, int], str]
) -> list[Record]:
    def told(row: int, place: int, candidate: Candidate) -> Candidate:
        if (row, place) not in texts:
            return candidate
        text = texts[row, place]
        if not text and settings.on_empty == "raise":
            raise DataError(
                f"{_name(records[row], place)}: nothing was said as its caption of kind '{kind}'; set on_empty: prompt"
                " to take the record's prompt in such places"
            )
        return replace(candidate, captions=(*candidate.captions, Caption(kind, text or records[row].prompt)))

    return [
        replace(record, candidates=tuple(told(row, place, one) for place, one in enumerate(record.candidates)))
        for row, record in enumerate(records)
    ]


def shortened(text: str, max_words: int) -> str:
    """Return a text in one line with so many words at most: its first sentences that fit, else its first words.

    >>> shortened("A red car. It is fast.", 4)
    'A red car.'
    """
    line = " ".join(text.split())
    if len(line.split(" ")) <= max_words:
        return line
    kept: list[str] = []
    for sentence in _SENTENCE_END.split(line):
        if len(" ".join([*kept, sentence]).split(" ")) > max_words:
            break
        kept.append(sentence)
    return " ".join(kept) or " ".join(line.split(" ")[:max_words])


def _name(record: Record, place: int) -> str:
    return f"record {record.id!r}, candidate {place}"

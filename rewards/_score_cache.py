"""Scores on disk: a picture that a reward has seen with a prompt is not shown to it again, in this process or another.

A score belongs to the reward's name, version and preprocessing, the content of the item (pixels, samples, text), the
prompt where it matters and the metadata where they are read. It is found again wherever the item came from.

A folder holds ``<reward>-<digest>/<process>.jsonl``, a line a score. A process appends to a file of its own and reads
all of them, so that several may work on one folder; what a kill left of a last line has no end and is not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.files import append_line, write_json
from diffpref.rewards._media import as_clips, as_pictures, as_sounds, as_texts, check_lengths, is_clip
from diffpref.rewards._wrapper import Wrapper, wrap

__all__ = ["CachedReward", "ScoreFiles", "cached", "media_digests"]

logger = logging.getLogger(__name__)

CHUNK = 64  # items asked for before their scores are written
OVERALL = ""  # the aspect that ``score`` is
COMPARED = "first over second"
ABOUT = "reward.json"


def _digest(*parts: Any) -> str:
    """Return 32 hexadecimal digits of values that JSON can hold; texts that run together differ from one text."""
    told = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _array_digest(kind: str, values: np.ndarray, rate: float | None = None) -> str:
    head = json.dumps([kind, values.shape, values.dtype.str, rate]).encode()
    return hashlib.blake2b(head + np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def media_digests(info: RewardInfo, media: Sequence[Media]) -> list[str]:
    """Return a digest of what a reward would see of each item: one for pixels, whatever file or array they come from.

    Raises:
        DataError: an item is of another kind than the reward scores.
    """
    if info.media == "text":
        return [_digest("text", text) for text in as_texts(info.name, media)]
    if info.media == "audio":
        return [_array_digest("audio", sound.samples, sound.rate) for sound in as_sounds(info.name, media)]
    if info.media == "video":
        return [_array_digest("video", clip.frames, clip.fps) for clip in as_clips(info.name, media)]
    if "video" in info.also:
        alone = replace(info, also=())
        return [media_digests(replace(alone, media="video") if is_clip(m) else alone, [m])[0] for m in media]
    return [_array_digest("image", np.asarray(picture)) for picture in as_pictures(info.name, media)]


class ScoreFiles:
    """The scores of one reward in a folder that several processes may share.

    Args:
        folder: where they lie; it must be there when the first one is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._known: dict[str, float] = {}
        self._read: dict[Path, int] = {}
        self._own: tuple[int, Path] | None = None

    def find(self, keys: Sequence[str]) -> dict[str, float]:
        """Return the scores that are there, by key."""
        if not all(key in self._known for key in keys):
            self._read_on()
        return {key: self._known[key] for key in keys if key in self._known}

    def add(self, scores: Mapping[str, float]) -> None:
        """Write scores; when this returns, other processes find them."""
        if not scores:
            return
        if self._own is None or self._own[0] != os.getpid():  # a fork writes to a file of its own
            self._own = (os.getpid(), self.folder / f"{uuid.uuid4().hex}.jsonl")
        lines = [json.dumps({"key": key, "score": _told(value)}) for key, value in scores.items()]
        append_line(self._own[1], "\n".join(lines))
        self._known.update(scores)

    def _read_on(self) -> None:
        """Read what was appended since the last time, up to the last whole line of each file."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            bad = sum(not self._take(line) for line in whole.splitlines())
            if bad:
                logger.warning("%s: %d lines are no scores and are ignored", path, bad)

    def _take(self, line: bytes) -> bool:
        try:
            found = json.loads(line)
            key, value = found["key"], float(found["score"])
        except (ValueError, KeyError, TypeError):
            return False
        if value == value or key not in self._known:  # NaN takes the place of no answer that could be read
            self._known[str(key)] = value
        return True


def _told(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


class CachedReward(Wrapper):
    """A reward that asks the one inside only for what is not on disk. Made by `cached`.

    Args:
        inner: the reward inside.
        folder: of the scores of all rewards.
        ask_again: ask once more where the last answer was NaN.
    """

    def __init__(self, inner: Reward, folder: Path, ask_again: bool = False) -> None:
        super().__init__(inner)
        info = inner.info
        about = {"name": info.name, "version": info.version, "preprocessing": info.preprocessing}
        self.files = ScoreFiles(folder / f"{info.name}-{_digest(about)[:12]}")
        self.ask_again = ask_again
        self.hits = self.asked = 0
        if not (self.files.folder / ABOUT).is_file():
            write_json(self.files.folder / ABOUT, about)

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N items and N prompts: scores of earlier calls, and the others asked for now.

        Raises:
            ShapeError: not as many prompts as items, or the reward inside gave another number of scores.
            DataError: an item is of another kind than the reward scores.
        """

        def ask(rows: list[int]) -> dict[str, Tensor]:
            return {OVERALL: self.inner.score(*_chosen(rows, media, prompts, metadata))}

        return self._answers((OVERALL,), self._marks(media, prompts, metadata), ask)[OVERALL]

    def _score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each of ``info.aspects``, as `score` does."""

        def ask(rows: list[int]) -> dict[str, Tensor]:
            found: dict[str, Tensor] = self.inner.score_aspects(*_chosen(rows, media, prompts, metadata))
            return found

        return self._answers(self.info.aspects, self._marks(media, prompts, metadata), ask)

    def _compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) P(first is better than second); the two orders of a pair are two questions."""
        check_lengths(self.info.name, first, prompts)
        check_lengths(self.info.name, second, prompts)
        sides = zip(media_digests(self.info, first), media_digests(self.info, second), prompts, strict=True)

        def ask(rows: list[int]) -> dict[str, Tensor]:
            return {COMPARED: self.inner.compare(*([part[row] for row in rows] for part in (first, second, prompts)))}

        return self._answers((COMPARED,), [list(side) for side in sides], ask)[COMPARED]

    def _marks(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None
    ) -> list[list[Any]]:
        """Return for each item all that its scores follow from."""
        info = self.info
        check_lengths(info.name, media, prompts, metadata)
        read: Sequence[Any] = metadata if info.needs_metadata and metadata is not None else [None] * len(media)
        try:
            told = [_digest(entry) for entry in read]
        except TypeError as error:  # of json: what has no value of its own cannot be found again
            raise DataError(f"reward '{info.name}': metadata must be JSON values to be cached: {error}") from error
        asked = [prompt if info.needs_prompt else "" for prompt in prompts]
        return [list(mark) for mark in zip(media_digests(info, media), asked, told, strict=True)]

    def _answers(
        self,
        aspects: Sequence[str],
        marks: Sequence[Sequence[Any]],
        ask: Callable[[list[int]], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return what is there of each aspect, and ask about the rows of which anything is missing."""
        keys = [{aspect: _digest(aspect, *mark) for aspect in aspects} for mark in marks]
        found = self.files.find([key for row in keys for key in row.values()])
        missing: dict[tuple[str, ...], int] = {}
        for number, row in enumerate(keys):
            if any(self._is_missing(found.get(key)) for key in row.values()):
                missing.setdefault(tuple(row.values()), number)  # of equal items one is asked about
        rows = list(missing.values())
        self.hits, self.asked = self.hits + len(marks) - len(rows), self.asked + len(rows)
        if marks:
            logger.info("%s: %d of %d scores were there", self.info.name, len(marks) - len(rows), len(marks))
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            new = self._ask(aspects, [keys[row] for row in part], part, ask)
            self.files.add(new)
            found.update(new)
        return {a: torch.tensor([found[row[a]] for row in keys], dtype=torch.float32) for a in aspects}

    def _is_missing(self, value: float | None) -> bool:
        return value is None or (self.ask_again and value != value)

    def _ask(
        self,
        aspects: Sequence[str],
        keys: Sequence[Mapping[str, str]],
        rows: list[int],
        ask: Callable[[list[int]], Mapping[str, Tensor]],
    ) -> dict[str, float]:
        answers = {aspect: scores.tolist() for aspect, scores in ask(rows).items()}
        for aspect in aspects:
            if np.shape(answers[aspect]) != (len(rows),):
                shape = np.shape(answers[aspect])
                raise ShapeError(f"reward '{self.info.name}': expected {len(rows)} scores, got shape {shape}")
        return {row[aspect]: answers[aspect][place] for place, row in enumerate(keys) for aspect in aspects}


def _chosen(rows: list[int], *columns: Sequence[Any] | None) -> list[list[Any] | None]:
    return [None if column is None else [column[row] for row in rows] for column in columns]


def cached(reward: Reward, folder: Path | str, *, ask_again: bool = False) -> CachedReward:
    """Return a reward that gives the same scores and keeps them on disk.

    Aspects and comparisons are kept too, where the reward offers them; ``score_tensors`` is handed on as it is. How
    many scores were there is logged, and counted in ``hits`` and ``asked``.

    Args:
        reward: whose scores are kept, by its name, version and preprocessing: those of another version are not found.
        folder: of the scores of all rewards; several processes may share it.
        ask_again: NaN (an answer that could not be read) is kept as it was told and not asked for again, so that
            numbers repeat; True asks again, and keeps the new answer.

    Raises:
        ConfigError: scores of the reward depend on which items are asked about together.
    """
    if not reward.info.itemwise:
        raise ConfigError(
            f"reward '{reward.info.name}' ({reward.info.version}) scores an item by what is asked together with it;"
            " such scores cannot be kept. Choose an output of single items"
        )
    return wrap(CachedReward, reward, Path(folder), ask_again)

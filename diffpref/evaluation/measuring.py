"""Drawing and scoring, contender by contender and chunk by chunk; each chunk is kept before the next one begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError
from diffpref.core.judging import MediaKind
from diffpref.core.media import Media
from diffpref.evaluation.compare import Facts, ask, look
from diffpref.evaluation.contenders import Contender
from diffpref.evaluation.embedding import EmbeddingFiles
from diffpref.evaluation.folder import EvaluationFolder
from diffpref.evaluation.placing import place_contender
from diffpref.evaluation.standings import Column
from diffpref.models import DenoiserFamily
from diffpref.models.base import Network
from diffpref.sampling import Sampler

__all__ = ["KINDS", "NOUNS", "Images", "Measures", "Sample", "Studio", "check_judges", "check_kinds", "measure"]

logger = logging.getLogger(__name__)

Sample: TypeAlias = Callable[[Sequence[str], Sequence[int]], Sequence[Media]]
"""Prompts and seeds to (H, W, 3) uint8 pictures, or to clips."""

Images = Literal["keep", "sample", "none"]
"""Which pictures stay: all, those that the report shows, or none."""

AT_LEAST = 64  # pictures of a chunk
FACTS = "facts"
NOUNS: Mapping[MediaKind, str] = {"image": "pictures", "video": "clips", "audio": "sounds", "text": "texts"}
KINDS: Mapping[str, MediaKind] = {"images": "image", "videos": "video"}
"""What a family makes -> what that is to a reward."""


class Studio:
    """Draws contenders' pictures where none are kept. One model is held at a time, and none before it is needed.

    Args:
        folder: where pictures are kept.
        open_base: loads the base, all its parts.
        make_sampler: makes a sampler over a family's denoiser as it is.
        batch_size: pictures drawn at once.
        prepare: what is done with a denoiser that takes the place of the base's; see `place_contender`.
    """

    def __init__(
        self,
        folder: EvaluationFolder,
        open_base: Callable[[], DenoiserFamily],
        make_sampler: Callable[[DenoiserFamily], Sampler],
        batch_size: int,
        prepare: Callable[[Network], object] = lambda network: None,
    ) -> None:
        self.folder, self.batch_size, self._prepare = folder, batch_size, prepare
        self._open_base, self._make_sampler = open_base, make_sampler
        self._held: tuple[Contender, DenoiserFamily, Sampler] | None = None

    def hold(self, contender: Contender) -> tuple[DenoiserFamily, Sampler]:
        """Return a contender's model and its sampler, loading it in the place of the one that is held."""
        if self._held is None or self._held[0] != contender:
            self._held = None  # its memory is free before the next one is loaded
            family = place_contender(contender, self._open_base, self._prepare)
            self._held = contender, family, self._make_sampler(family)
        return self._held[1:]

    def draw(self, contender: Contender, indices: Iterable[int]) -> int:
        """Draw those of the pictures that are not there; return how many."""
        plan, name = self.folder.plan, contender.name
        missing = [index for index in indices if not self.folder.has(name, index)]
        for start in range(0, len(missing), self.batch_size):
            part = missing[start : start + self.batch_size]
            _, sampler = self.hold(contender)
            drawn = sampler([plan.prompts[i] for i in part], [plan.seeds[i] for i in part])
            for index, picture in zip(part, drawn, strict=True):
                self.folder.put(name, index, picture)
        return len(missing)

    def show(self, contender: Contender, indices: Sequence[int]) -> list[Media]:
        """Return pictures, (H, W, 3) uint8 each, or clips, drawing those that are missing or cannot be read."""
        self.draw(contender, indices)
        shown = [self.folder.get(contender.name, index) for index in indices]
        if damaged := [index for index, picture in zip(indices, shown, strict=True) if picture is None]:
            self.draw(contender, damaged)
            again = {index: self.folder.get(contender.name, index) for index in damaged}
            shown = [again.get(index, picture) for index, picture in zip(indices, shown, strict=True)]
        return [picture for picture in shown if picture is not None]


@dataclass(frozen=True)
class Measures:
    """What is asked of every picture or clip.

    Args:
        judges: name -> reward.
        facts: ground truth, where the world has one.
        probes: name -> function of a picture, (H, W, 3) uint8, or of a clip, to a number.
        embedder: the judge whose embeddings tell diversity and the distance from the base's pictures.
        facts_version: part of what is kept.
        probes_version: likewise.
    """

    judges: Mapping[str, Reward]
    facts: Facts | None = None
    probes: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    embedder: str | None = None
    facts_version: str = "1"
    probes_version: str = "1"

    def questions(self) -> list[tuple[str, str, str]]:
        """Return (kind, name, version) of everything that is asked."""
        told = [
            ("judge", name, "; ".join(filter(None, (judge.info.version, judge.info.preprocessing))))
            for name, judge in self.judges.items()
        ]
        told += [(FACTS, FACTS, self.facts_version)] if self.facts else []
        return told + [("probe", name, self.probes_version) for name in self.probes]

    def embed(self, pictures: Sequence[Media]) -> np.ndarray:
        """Return the embedder's (N, D) float32."""
        judge: Any = self.judges[self.embedder or ""]
        return np.asarray(judge.embed_images(pictures), dtype=np.float32)

    def answer(
        self, kind: str, name: str, pictures: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Any]
    ) -> list[Any]:
        """Return what is said of each picture, JSON-ready."""
        if kind == "judge":
            return list(ask(name, self.judges[name], pictures, prompts, metadata or None))
        if kind == FACTS:
            assert self.facts is not None
            return list(look(self.facts, pictures, prompts))
        return [float(self.probes[name](picture)) for picture in pictures]


def check_kinds(judges: Mapping[str, Reward], kind: MediaKind) -> None:
    """Refuse, before anything is drawn, rewards of another kind of media.

    Args:
        judges: name -> reward.
        kind: of what is drawn.

    Raises:
        ConfigError: the line says which reward, and how rewards of pictures are asked about clips.
    """
    for name, judge in judges.items():
        if not judge.info.takes(kind):
            hint = ""
            if (judge.info.media, kind) == ("image", "video"):
                hint = f"; score frames: {{frame_mean: {{reward: {name}}}}}, with the options of {name} in it"
            raise ConfigError(f"reward '{name}' scores {NOUNS[judge.info.media]}, and {NOUNS[kind]} are drawn{hint}")


def check_judges(judges: Mapping[str, Any], *, metadata: bool, kind: MediaKind = "image") -> None:
    """Refuse, before anything is drawn, judges that cannot score the pictures.

    Args:
        judges: name -> reward.
        metadata: whether the prompts come with any.
        kind: of what is drawn.

    Raises:
        ConfigError: a judge of another kind of media, one that only compares, or one that reads metadata which the
            prompts do not have.
    """
    for name, judge in judges.items():
        if not callable(getattr(judge, "score", None)):
            raise ConfigError(f"reward '{name}' compares two items and scores none; name one that scores pictures")
        check_kinds({name: judge}, kind)
        if judge.info.needs_metadata and not metadata:
            raise ConfigError(
                f"reward '{name}' reads what a picture should show from metadata, which these prompts do not have; name"
                " a prompt set with metadata, or a .jsonl file"
            )


def measure(
    contender: Contender,
    studio: Studio,
    measures: Measures,
    *,
    images: Images = "keep",
    tell: Callable[[str, int, int], None] = lambda name, done, total: None,
    **told: Any,
) -> tuple[Column, np.ndarray | None]:
    """Draw a contender's pictures and ask everything of them, as far as it is not kept from an earlier start.

    Args:
        contender: whose.
        studio: draws.
        measures: what is asked.
        images: ``keep``: all stay, and those that are missing are drawn again; ``sample``: they stay for now;
            ``none``: they are removed as soon as everything was asked of them.
        tell: called with (contender, pictures done, pictures in all).
        told: further fields of the `Column`.

    Returns:
        What was said of each picture, and (N, D) embeddings where there is an embedder.
    """
    folder, plan = studio.folder, studio.folder.plan
    questions, embedding = measures.questions(), None
    if measures.embedder is not None:
        version = measures.judges[measures.embedder].info.version
        embedding = EmbeddingFiles(folder.path / "columns" / contender.name / "embeddings", version)
    files = [folder.column(contender.name, f"{kind}-{name}", version) for kind, name, version in questions]
    values = [file.read() for file in files]
    embeddings: list[np.ndarray] = []
    chunk = studio.batch_size * -(-AT_LEAST // studio.batch_size)
    for start in range(0, len(plan), chunk):
        rows = range(start, min(start + chunk, len(plan)))
        open_ones = [number for number, found in enumerate(values) if len(found) < rows.stop]
        embedded = None if embedding is None else embedding.read(start, len(rows))
        if images == "keep":
            studio.draw(contender, rows)  # also those of which all was asked, before they were removed
        if open_ones or (embedding is not None and embedded is None):
            pictures = studio.show(contender, list(rows))
            prompts, metadata = plan.prompts[start : rows.stop], plan.metadata[start : rows.stop]
            for number in open_ones:
                kind, name, _ = questions[number]
                answers = measures.answer(kind, name, pictures, prompts, metadata)
                values[number] = values[number][:start] + answers
                files[number].write(values[number])
            if embedding is not None and embedded is None:
                embedded = measures.embed(pictures)
                embedding.write(start, embedded)
            if images == "none":
                folder.drop(contender.name, rows)
        embeddings += [] if embedded is None else [embedded]
        tell(contender.name, rows.stop, len(plan))
    together = np.concatenate(embeddings) if embeddings else None
    return _column(questions, [found[: len(plan)] for found in values], told), together


def _column(questions: Sequence[tuple[str, str, str]], values: Sequence[Sequence[Any]], told: Any) -> Column:
    found: dict[str, dict[str, Any]] = {"judge": {}, "probe": {}, FACTS: {}}
    for (kind, name, _), answers in zip(questions, values, strict=True):
        if kind == FACTS:
            found[FACTS] = {fact: tuple(one[fact] for one in answers) for fact in answers[0]}
        else:
            found[kind][name] = tuple(answers)
    return Column(scores=found["judge"], facts=found[FACTS], probes=found["probe"], **told)

"""Guided candidates: clips or pictures drawn from a ground truth that is noised part of the way, as DenseDPO's pairs.

All candidates of a record begin with one ground truth, at one strength, each with noise of its own: they have the same
motion and layout, and differ in detail. A record says in ``meta`` what it was made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from diffpref.core.contracts import Media, Record, Reward
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.media import Clip
from diffpref.core.randomness import Random, hash_key
from diffpref.data import Store, decode_image
from diffpref.data.clips import candidate_digest, candidate_source, cut_clip
from diffpref.data.pairs import LIMIT, whole_judgements
from diffpref.data.views import ClipCut
from diffpref.generation.candidates import candidate_of, grow
from diffpref.generation.scoring import Progress
from diffpref.sampling import BEGINNINGS, Beginning, SamplerSettings

__all__ = ["DrawFrom", "GroundTruth", "GuidedPlan", "generate_guided", "ground_truths"]

DrawFrom: TypeAlias = Callable[[Sequence[Media], Sequence[str], Sequence[int], Sequence[float]], Sequence[Media]]
"""Media, prompts, seeds and strengths to pictures or clips, such as `diffpref.sampling.SdeditSampler`."""
SOURCE = "guided"
"""What records say of where they come from."""


@dataclass(frozen=True)
class GroundTruth:
    """A clip or picture with its caption.

    Args:
        prompt: the caption.
        sha256: of the encoded medium.
        record: its place in the source.
        candidate: its place in the record.
    """

    prompt: str
    sha256: str
    record: int
    candidate: int

    @property
    def key(self) -> tuple[str, str]:
        """Of every draw that belongs to it, wherever it stands."""
        return self.prompt, self.sha256


def ground_truths(records: Sequence[Record]) -> tuple[GroundTruth, ...]:
    """Return what candidates can be drawn from: of each record its only candidate, or the one that is judged better.

    Of copies, with equal captions and equal bytes, the first is taken.

    Args:
        records: of a store, or of a folder of captioned media.

    Raises:
        DataError: a record has several candidates and no judgement, or none, or a text; or a file cannot be read.
    """
    found: dict[tuple[str, str], GroundTruth] = {}
    for number, record in enumerate(records):
        place = _best(record)
        try:
            digest = candidate_digest(record.candidates[place])
        except DataError as error:
            raise DataError(f"record {record.id!r}: {error}") from error
        truth = GroundTruth(record.prompt, digest, number, place)
        found.setdefault(truth.key, truth)
    return tuple(found.values())


def _best(record: Record) -> int:
    if len(record.candidates) == 1:
        return 0
    judged = whole_judgements(record)
    if not judged or judged[0].probability == 0.5:
        raise DataError(
            f"record {record.id!r}: has {len(record.candidates)} candidates, of which none is judged better; as ground"
            " truth give records of one picture or clip, or of a pair with its judgement"
        )
    return judged[0].first if judged[0].probability > 0.5 else judged[0].second


@dataclass(frozen=True)
class GuidedPlan:
    """Every decision behind a set of guided candidates.

    Args:
        truths: what they are drawn from; a record each.
        candidates: of each; 2 are DenseDPO's pair.
        seed: of the run.
        settings: how they are drawn.
        strengths: a record's strength is drawn evenly from this range; DenseDPO's is 0.65 to 0.8.
        beginning: how a strength is read, see `diffpref.sampling.sdedit_begin`.
        fps: frames a second to which clips are thinned out; None takes their frames one after another.
        generator: which model draws, with a digest of its weights.
        unit_size: records of one part of the store.

    Raises:
        ConfigError: a value out of its range.
        DataError: there is nothing to draw from.
    """

    truths: tuple[GroundTruth, ...]
    candidates: int = 2
    seed: int = 0
    settings: SamplerSettings = field(default_factory=SamplerSettings)
    strengths: tuple[float, float] = (0.65, 0.8)
    beginning: Beginning = "dense_dpo"
    fps: float | None = None
    generator: str = ""
    unit_size: int = 32

    def __post_init__(self) -> None:
        for name in ("candidates", "unit_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        low, high = self.strengths
        if not 0 < low <= high <= 1:
            raise ConfigError(f"strengths: must be a range in (0, 1], got {low:g} to {high:g}")
        if self.beginning not in BEGINNINGS:
            raise ConfigError(f"beginning: must be one of {', '.join(BEGINNINGS)}, got '{self.beginning}'")
        if not self.truths:
            raise DataError("there is no ground truth to draw from")

    @property
    def units(self) -> list[tuple[GroundTruth, ...]]:
        """The ground truths of each part of the store."""
        return [self.truths[start : start + self.unit_size] for start in range(0, len(self.truths), self.unit_size)]

    @property
    def num_candidates(self) -> int:
        """How many candidates there are in all."""
        return len(self.truths) * self.candidates

    def strength_of(self, truth: GroundTruth) -> float:
        """Return how much of a ground truth is replaced by noise: the same for all its candidates."""
        low, high = self.strengths
        return low + (high - low) * float(Random(self.seed).uniform("strength", [truth.key]))

    def seed_of(self, truth: GroundTruth, candidate: int) -> int:
        """Return the seed of a candidate's noise."""
        return hash_key(self.seed, SOURCE, *truth.key, candidate)

    def record_id(self, truth: GroundTruth) -> str:
        """Return the id of a record: the same wherever its ground truth stands."""
        return f"{hash_key(self.seed, 'guided record', *truth.key):016x}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values that decide every candidate; of the ground truths their number and a digest."""
        listed = hashlib.sha256()
        for truth in self.truths:
            listed.update(f"{hash_key(*truth.key):016x}".encode())
        return {
            **{name: value for name, value in vars(self).items() if name not in ("truths", "settings", "strengths")},
            "settings": asdict(self.settings),
            "strengths": list(self.strengths),
            "ground_truths": len(self.truths),
            "ground_truths_digest": listed.hexdigest(),
        }


def generate_guided(
    plan: GuidedPlan,
    records: Sequence[Record],
    sampler: DrawFrom,
    output: Path | str,
    on_progress: Progress | None = None,
    *,
    scorers: Mapping[str, Reward] | None = None,
    max_unusable: float = LIMIT,
) -> Store:
    """Draw, and score, what is not there yet. Several processes may share the work.

    A record's ``meta`` has the ``strength``, the sha256 of the ``ground_truth``, and of a clip the positions of the
    ``frames`` that were noised.

    Args:
        plan: what to draw.
        records: in which the plan's ground truths stand.
        sampler: draws a candidate from a medium.
        output: the store's folder; parts of an earlier run of the same plan and scorers are kept.
        on_progress: called with (candidates there, candidates in all) at the start and after each unit.
        scorers: score name -> reward; each candidate gets a score of each.
        max_unusable: the largest share of a score that may be NaN, infinite or missing.

    Raises:
        DataError: the folder was made by another plan, a ground truth cannot be read or is too short, or too many
            scores are unusable.
        ShapeError: the sampler did not answer once for each question.
    """
    units = plan.units
    return grow(
        Path(output),
        {"kind": SOURCE, **plan.to_json()},
        [len(unit) * plan.candidates for unit in units],
        lambda number: _draw(plan, units[number], records, sampler),
        on_progress,
        scorers=scorers,
        max_unusable=max_unusable,
    )


def _draw(
    plan: GuidedPlan, truths: Sequence[GroundTruth], records: Sequence[Record], sampler: DrawFrom
) -> list[Record]:
    read = [_read(plan, truth, records) for truth in truths]
    wanted = [(number, k) for number in range(len(truths)) for k in range(plan.candidates)]
    seeds = [plan.seed_of(truths[number], k) for number, k in wanted]
    strengths = [plan.strength_of(truth) for truth in truths]
    drawn = sampler(
        [read[number][0] for number, _ in wanted],
        [truths[number].prompt for number, _ in wanted],
        seeds,
        [strengths[number] for number, _ in wanted],
    )
    if len(drawn) != len(wanted):
        raise ShapeError(f"the sampler gave {len(drawn)} candidates for {len(wanted)} media")
    generator = f"{plan.generator}, {plan.settings}" if plan.generator else str(plan.settings)
    made = [candidate_of(item, generator, seed) for item, seed in zip(drawn, seeds, strict=True)]
    return [
        Record(
            id=plan.record_id(truth),
            prompt=truth.prompt,
            candidates=tuple(made[number * plan.candidates : (number + 1) * plan.candidates]),
            source=SOURCE,
            meta={"strength": repr(strengths[number]), "ground_truth": truth.sha256, **read[number][1]},
        )
        for number, truth in enumerate(truths)
    ]


def _read(plan: GuidedPlan, truth: GroundTruth, records: Sequence[Record]) -> tuple[Media, dict[str, str]]:
    """Return a ground truth as the sampler takes it, and what a record says of it besides its digest."""
    record = records[truth.record]
    candidate, name = record.candidates[truth.candidate], f"record {record.id!r}"
    if plan.settings.num_frames is None:
        return decode_image(candidate_source(candidate, name), name=name), {}
    clip, places = cut_clip(candidate, ClipCut(plan.settings.num_frames, fps=plan.fps), name=name)
    return Clip(clip.frames, plan.fps or clip.fps), {"frames": " ".join(map(str, places))}

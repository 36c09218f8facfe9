"""Prompts to a store of candidates: drawn, and scored where scorers are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diffpref.core.contracts import Candidate, Record, Reward
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.core.media import Clip
from diffpref.data import Store, encode_png
from diffpref.data.clips import encode_clip
from diffpref.data.pairs import LIMIT
from diffpref.data.texts import MESSAGES
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import GrowingStore
from diffpref.generation.plan import GenerationPlan
from diffpref.generation.scoring import Progress, score_watched, versions, watch
from diffpref.sampling import TextSettings

__all__ = ["Sample", "candidate_of", "generate", "grow", "said"]

Sample: TypeAlias = Callable[[Sequence[str], Sequence[int]], Sequence["np.ndarray | Clip | str"]]
"""Prompts and seeds to (H, W, 3) uint8 pictures, clips or texts, each a function of its own prompt and seed."""


def generate(
    plan: GenerationPlan,
    sampler: Sample | Mapping[Any, Sample],
    output: Path | str,
    on_progress: Progress | None = None,
    *,
    scorers: Mapping[str, Reward] | None = None,
    max_unusable: float = LIMIT,
) -> Store:
    """Draw, and score, what is not there yet. Several processes may share the work.

    Args:
        plan: what to draw.
        sampler: draws pictures, clips or answers; one for each of the plan's settings where there are several.
        output: the store's folder; parts of an earlier run of the same plan and scorers are kept.
        on_progress: called with (candidates there, candidates in all) at the start and after each unit.
        scorers: score name -> reward; each candidate gets a score of each.
        max_unusable: the largest share of a score that may be NaN, infinite or missing.

    Raises:
        ConfigError: a setting of the plan has no sampler.
        DataError: the folder was made by another plan, or too many scores are unusable.
        ShapeError: a sampler did not answer once for each question.
    """
    samplers = _samplers(plan, sampler)
    return grow(
        Path(output),
        {"kind": "generation", **plan.to_json()},
        [len(plan.unit(number)) * plan.candidates for number in range(plan.num_units)],
        lambda number: _draw(plan, plan.unit(number), samplers),
        on_progress,
        scorers=scorers,
        max_unusable=max_unusable,
    )


def grow(
    output: Path,
    decided: Mapping[str, Any],
    counts: Sequence[int],
    draw: Callable[[int], list[Record]],
    on_progress: Progress | None = None,
    *,
    scorers: Mapping[str, Reward] | None = None,
    max_unusable: float = LIMIT,
) -> Store:
    """Draw and score the units that are not there yet, beside whatever other processes work on them.

    Args:
        output: the store's folder.
        decided: JSON-ready values from which the content follows, but for the scorers.
        counts: how many candidates each unit has.
        draw: number of a unit -> its records, without scores.
        on_progress: called with (candidates there, candidates in all) at the start and after each unit.
        scorers: score name -> reward; each candidate gets a score of each.
        max_unusable: the largest share of a score that may be NaN, infinite or missing.

    Raises:
        DataError: the folder was made by another plan, or too many scores are unusable.
    """
    scorers, total = dict(scorers or {}), sum(counts)
    growing = GrowingStore(output, {**decided, "scores": versions(scorers)}, len(counts))
    watched = watch(scorers, total)

    def make(number: int) -> list[Record]:
        return score_watched(draw(number), scorers, watched, max_unusable)

    def tell(missing: Sequence[int]) -> None:
        if on_progress:
            on_progress(total - sum(counts[number] for number in missing), total)

    rank, num_ranks = share_of_work()
    growing.fill(make, tell, rank=rank, num_ranks=num_ranks)
    return growing.finish(max_unusable)


def _samplers(plan: GenerationPlan, sampler: Sample | Mapping[Any, Sample]) -> Mapping[Any, Sample]:
    distinct = dict.fromkeys(plan.settings)
    if not isinstance(sampler, Mapping):
        if len(distinct) > 1:
            raise ConfigError(f"the plan has {len(distinct)} different settings; give a sampler for each")
        return {settings: sampler for settings in distinct}
    for settings in distinct:
        if settings not in sampler:
            raise ConfigError(f"no sampler for the plan's settings {asdict(settings)}")
    return sampler


def _draw(plan: GenerationPlan, prompts: Sequence[str], samplers: Mapping[Any, Sample]) -> list[Record]:
    drawn: dict[tuple[str, int], Candidate] = {}
    for settings in dict.fromkeys(plan.settings):
        wanted = [(p, k) for p in prompts for k in range(plan.candidates) if plan.settings_of(k) == settings]
        seeds = [plan.seed_of(prompt, k) for prompt, k in wanted]
        media = samplers[settings]([prompt for prompt, _ in wanted], seeds)
        if len(media) != len(wanted):
            raise ShapeError(f"the sampler gave {len(media)} candidates for {len(wanted)} prompts")
        generator = f"{plan.generator}, {settings}" if plan.generator else str(settings)
        for key, seed, item in zip(wanted, seeds, media, strict=True):
            drawn[key] = candidate_of(item, generator, seed)
    return [
        Record(
            id=plan.record_id(prompt),
            prompt=prompt,
            candidates=tuple(drawn[prompt, k] for k in range(plan.candidates)),
            source="generated",
            meta=_meta(plan, prompt),
        )
        for prompt in prompts
    ]


def _meta(plan: GenerationPlan, prompt: str) -> dict[str, str]:
    """Return what a record says of itself: the message that its prompt was put as, where it was put so."""
    chat = any(isinstance(settings, TextSettings) and settings.chat for settings in plan.settings)
    return said(prompt) if chat else {}


def said(prompt: str) -> dict[str, str]:
    """Return what a record says of itself where its prompt is put as a user's message."""
    return {MESSAGES: json.dumps([{"role": "user", "content": prompt}])}


def candidate_of(item: np.ndarray | Clip | str, generator: str, seed: int) -> Candidate:
    """Return a picture, clip or text that was drawn as a candidate; the bytes of both files are lossless."""
    if isinstance(item, str):
        return Candidate(text=item, generator=generator, seed=seed)
    content = encode_clip(item) if isinstance(item, Clip) else encode_png(item)
    return Candidate(bytes=content, sha256=hashlib.sha256(content).hexdigest(), generator=generator, seed=seed)

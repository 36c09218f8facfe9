"""Candidates of one prompt by several models, as in Syn-Pic (arXiv:2410.18013), put together and scored.

One model after the other draws all its candidates into a store of its own inside the output folder, so that only one is
in memory at a time; each of these is as resumable, and as shared by processes, as any generation. Then the parts of the
whole are put together and scored, and what the models have left beside it is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from diffpref.core.contracts import Record, Reward
from diffpref.core.errors import ConfigError
from diffpref.data import Store, read_store
from diffpref.data.pairs import LIMIT
from diffpref.data.store import MANIFEST
from diffpref.generation.candidates import Sample, generate
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import SOURCES, GrowingStore
from diffpref.generation.plan import GenerationPlan
from diffpref.generation.scoring import Progress, score_watched, versions, watch

__all__ = ["OpenSource", "generate_sources"]

OpenSource: TypeAlias = Callable[[], tuple[GenerationPlan, "Sample | Mapping[Any, Sample]"]]
"""Loads a model; returns the plan of its candidates, which names its weights, and what draws them."""
SHARED = ("prompts", "seed", "unit_size")
"""What the plans of all sources have in common."""


def generate_sources(
    sources: Mapping[str, OpenSource],
    output: Path | str,
    on_progress: Progress | None = None,
    *,
    scorers: Mapping[str, Reward] | None = None,
    max_unusable: float = LIMIT,
) -> Store:
    """Draw candidates by several models, put them together and score them. Several processes may share the work.

    A record has the candidates of the first source first. What a source draws is a function of its name, the prompt,
    the candidate's number within the source and the seed: another source changes nothing of it.

    Args:
        sources: name -> opens it. They are opened one after another, also where nothing is left to draw, because a
            plan names the weights.
        output: the store's folder; what an earlier run of the same plans and scorers has left is kept.
        on_progress: called with (candidates drawn, candidates in all so far opened) after each unit.
        scorers: score name -> reward; each candidate gets a score of each.
        max_unusable: the largest share of a score that may be NaN, infinite or missing.

    Raises:
        ConfigError: no sources, or plans of other prompts, seeds or units.
        DataError: the folder was made by other plans, or too many scores are unusable.
    """
    output, scorers = Path(output), dict(scorers or {})
    plans: dict[str, GenerationPlan] = {}
    drawn = 0
    for name, open_source in sources.items():
        plan, sampler = open_source()
        plans[name] = plan = replace(plan, source=name)
        _check_alike(plans)
        if not (output / MANIFEST).is_file():
            tell = None if on_progress is None else _further(on_progress, drawn)
            generate(plan, sampler, output / SOURCES / name, tell)
        drawn += plan.num_pictures
        del sampler  # with it goes the model, before the next is loaded
    if not plans:
        raise ConfigError("sources: name at least one model")
    return _put_together(plans, output, scorers, max_unusable)


def _further(on_progress: Progress, before: int) -> Progress:
    return lambda done, total: on_progress(before + done, before + total)


def _check_alike(plans: Mapping[str, GenerationPlan]) -> None:
    first_name, first = next(iter(plans.items()))
    for name, plan in plans.items():
        for field in SHARED:
            if getattr(plan, field) != getattr(first, field):
                raise ConfigError(f"sources: '{name}' has other {field} than '{first_name}'; all draw for the same")


def _put_together(
    plans: Mapping[str, GenerationPlan], output: Path, scorers: Mapping[str, Reward], max_unusable: float
) -> Store:
    told = {name: plan.to_json() for name, plan in plans.items()}
    first = next(iter(told.values()))
    decided = {
        "kind": "sources",
        **{field: first[field] for field in SHARED},
        "sources": {name: {k: v for k, v in one.items() if k not in SHARED} for name, one in told.items()},
        "scores": versions(scorers),
    }
    units = next(iter(plans.values()))
    growing = GrowingStore(output, decided, units.num_units)
    watched = watch(scorers, sum(plan.num_pictures for plan in plans.values()))

    @cache
    def opened() -> dict[str, Store]:
        return {name: read_store(output / SOURCES / name, verify="counts") for name in plans}

    def make(number: int) -> list[Record]:
        start = number * units.unit_size
        rows = range(start, start + len(units.unit(number)))
        records = [_joined([(name, store[row]) for name, store in opened().items()]) for row in rows]
        return score_watched(records, scorers, watched, max_unusable)

    rank, num_ranks = share_of_work()
    growing.fill(make, rank=rank, num_ranks=num_ranks)
    store = growing.finish(max_unusable)
    shutil.rmtree(output / SOURCES, ignore_errors=True)  # only now: whoever still needs it would have kept us waiting
    return store


def _joined(parts: Sequence[tuple[str, Record]]) -> Record:
    """Return one record of what several sources have drawn for a prompt."""
    candidates = tuple(
        replace(candidate, generator=f"{name}: {candidate.generator}")
        for name, record in parts
        for candidate in record.candidates
    )
    return replace(parts[0][1], candidates=candidates)

"""A finished run against the base that it started from, in memory: same prompts, same seeds, same sampler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Reward
from diffpref.core.errors import DataError
from diffpref.core.media import Media
from diffpref.evaluation.compare import ALIGNED, Facts, comparison, judged_pair
from diffpref.evaluation.contenders import BASE, open_run, result_folder
from diffpref.evaluation.independence import labels_of
from diffpref.evaluation.measuring import Sample
from diffpref.evaluation.placing import apply_result
from diffpref.evaluation.plan import evaluation_pairs
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.standings import Standings
from diffpref.models import DenoiserFamily

__all__ = ["Evaluation", "Sample", "apply_result", "evaluate_run", "evaluation_pairs", "open_run", "result_folder"]


@dataclass(frozen=True)
class Evaluation:
    """What was found, and the pictures that were looked at.

    Args:
        standings: every number, of the contenders base and aligned.
        comparison: of the two.
        base_images: pictures or clips of the base model, in the order of ``comparison.items``.
        aligned_images: of the aligned model.
        seconds: stage -> wall-clock seconds.
    """

    standings: Standings
    comparison: Comparison
    base_images: Sequence[Media]
    aligned_images: Sequence[Media]
    seconds: Mapping[str, float]


def evaluate_run(
    folder: Path | str,
    family: DenoiserFamily,
    make_sampler: Callable[[DenoiserFamily], Sample],
    prompts: Sequence[str],
    judges: Mapping[str, Reward],
    facts: Facts | None = None,
    *,
    num_seeds: int = 1,
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
    setting: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Draw with the base, put the run's result in its place, draw again, and compare.

    Args:
        folder: of the run.
        family: the run's base, complete; afterwards its denoiser is the aligned one.
        make_sampler: makes a sampler over the family's denoiser as it is; called once a side.
        prompts: different texts. Captions that gave training pairs say little.
        judges: name -> reward. At least one should not have labelled the training data.
        facts: ground truth, where the world has one.
        num_seeds: pictures of each prompt.
        seed: of the evaluation; see `evaluation_pairs`.
        on_stage: told what begins: ``"base"``, ``"aligned"``, ``"judges"``.
        setting: JSON-ready, what the results should tell beside the numbers.

    Raises:
        CheckpointError: the run has no result, or one that does not fit the family.
        DataError: no prompts, or nobody to judge.
    """
    texts, seeds = evaluation_pairs(prompts, num_seeds, seed)
    if not judges and facts is None:
        raise DataError("nobody judges: name at least one reward")
    seconds: dict[str, float] = {}
    images: list[Sequence[Media]] = []
    tell = on_stage or (lambda stage: None)
    for stage in (BASE, ALIGNED):
        tell(stage)
        start = time.perf_counter()
        if stage == ALIGNED:
            apply_result(family, folder)
        images.append(make_sampler(family)(texts, seeds))
        seconds[stage] = time.perf_counter() - start
    tell("judges")
    start = time.perf_counter()
    standings = judged_pair(texts, seeds, images[0], images[1], judges, facts, seed=seed, setting=dict(setting or {}))
    columns = dict(standings.columns)
    columns[ALIGNED] = replace(columns[ALIGNED], labelled_by=labels_of(open_run(folder)))
    standings = replace(standings, columns=columns)
    found = comparison(standings, ALIGNED)
    seconds["judges"] = time.perf_counter() - start
    return Evaluation(standings, found, images[0], images[1], seconds)

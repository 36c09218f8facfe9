"""Judge a base and an aligned model on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from diffpref.core.contracts import Media, Reward
from diffpref.core.errors import DataError, ShapeError
from diffpref.evaluation.results import Comparison, FactResult, Item, ScoreResult
from diffpref.evaluation.statistics import difference, win_rate

__all__ = ["Facts", "compare"]

Facts: TypeAlias = Callable[[Media, str], Mapping[str, bool]]
"""Tells, for a picture and its prompt, which facts hold. The names are the same for every picture."""


def _judge(name: str, judge: Reward, media: Sequence[Media], prompts: Sequence[str]) -> np.ndarray:
    scores = np.array([float(score) for score in judge.score(media, prompts)])
    if scores.shape != (len(prompts),):
        raise ShapeError(f"judge '{name}' gave {scores.size} scores for {len(prompts)} pictures")
    return scores


def _look(facts: Facts, media: Sequence[Media], prompts: Sequence[str]) -> list[dict[str, bool]]:
    found = [dict(facts(picture, prompt)) for picture, prompt in zip(media, prompts, strict=True)]
    for one in found:
        if set(one) != set(found[0]) or not one:
            raise DataError(f"every picture must have the same facts, got {sorted(found[0])} and {sorted(one)}")
    return [{name: bool(one[name]) for name in found[0]} for one in found]


def compare(
    prompts: Sequence[str],
    seeds: Sequence[int],
    base_images: Sequence[Media],
    aligned_images: Sequence[Media],
    judges: Mapping[str, Reward],
    facts: Facts | None = None,
    *,
    num_draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Score both models' pictures and compare them pair by pair, with bootstrap intervals over prompts.

    Args:
        prompts: N texts; one that occurs with several seeds is resampled as a whole.
        seeds: N seeds of the initial noise.
        base_images: N pictures by the base model.
        aligned_images: N pictures by the aligned model, from the same prompts, seeds and sampler settings.
        judges: name -> reward. At least one should not have labelled the training data.
        facts: ground truth, where the world has one.
        num_draws: resamples of each interval.
        level: of the intervals.
        seed: of the resampling.

    Raises:
        ShapeError: not equally many of everything.
        DataError: no pairs, nobody to judge them, or a judge without a single finite pair.
    """
    counts = {len(prompts), len(seeds), len(base_images), len(aligned_images)}
    if len(counts) != 1:
        raise ShapeError(
            f"expected equally many prompts, seeds, base and aligned images, got {len(prompts)}, {len(seeds)}, "
            f"{len(base_images)} and {len(aligned_images)}"
        )
    if counts == {0} or not (judges or facts):
        raise DataError("nothing to compare: give pairs of images, and judges or facts")
    options: dict[str, Any] = {"groups": list(prompts), "num_draws": num_draws, "level": level, "seed": seed}

    def score_result(name: str, version: str, aligned: np.ndarray, base: np.ndarray) -> ScoreResult:
        finite = np.isfinite(aligned) & np.isfinite(base)
        if not finite.any():
            raise DataError(f"judge '{name}' gave no pair of finite scores")
        return ScoreResult(
            name,
            version,
            float(base[finite].mean()),
            float(aligned[finite].mean()),
            float(np.median(base[finite])),
            float(np.median(aligned[finite])),
            difference(aligned, base, scale=1.0, **options),
            win_rate(aligned, base, **options),
        )

    def fact_result(name: str, aligned: np.ndarray, base: np.ndarray) -> FactResult:
        return FactResult(name, float(base.mean()), float(aligned.mean()), difference(aligned, base, **options))

    base_scores = {name: _judge(name, judge, base_images, prompts) for name, judge in judges.items()}
    aligned_scores = {name: _judge(name, judge, aligned_images, prompts) for name, judge in judges.items()}
    base_facts = _look(facts, base_images, prompts) if facts else [{} for _ in prompts]
    aligned_facts = _look(facts, aligned_images, prompts) if facts else [{} for _ in prompts]
    if base_facts[0].keys() != aligned_facts[0].keys():
        raise DataError(f"both sides must have the same facts, got {[*base_facts[0]]} and {[*aligned_facts[0]]}")

    names = list(base_facts[0])
    base_table = np.array([[one[name] for name in names] for one in base_facts])  # (N, facts) booleans
    aligned_table = np.array([[one[name] for name in names] for one in aligned_facts])
    items = [
        Item(
            prompt=prompts[i],
            seed=int(seeds[i]),
            base_scores={name: _finite(scores[i]) for name, scores in base_scores.items()},
            aligned_scores={name: _finite(scores[i]) for name, scores in aligned_scores.items()},
            base_facts=base_facts[i],
            aligned_facts=aligned_facts[i],
        )
        for i in range(len(prompts))
    ]
    return Comparison(
        items=tuple(items),
        judges=tuple(score_result(n, j.info.version, aligned_scores[n], base_scores[n]) for n, j in judges.items()),
        facts=tuple(fact_result(name, aligned_table[:, k], base_table[:, k]) for k, name in enumerate(names)),
        all_facts=(
            fact_result("all facts right", np.asarray(aligned_table.all(1)), np.asarray(base_table.all(1)))
            if names
            else None
        ),
        num_facts=(
            score_result("facts right", "", aligned_table.sum(1).astype(float), base_table.sum(1).astype(float))
            if names
            else None
        ),
        level=level,
        num_draws=num_draws,
        seed=seed,
    )


def _finite(score: float) -> float | None:
    return float(score) if np.isfinite(score) else None

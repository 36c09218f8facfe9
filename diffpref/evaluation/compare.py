"""Asking judges about pictures, and comparing two contenders pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from diffpref.core.contracts import Media, Reward
from diffpref.core.errors import DataError, ShapeError
from diffpref.evaluation.contenders import BASE
from diffpref.evaluation.results import Comparison, FactResult, Item, ScoreResult
from diffpref.evaluation.standings import Column, Standings, finite
from diffpref.evaluation.statistics import difference, win_rate

__all__ = ["ALIGNED", "Facts", "ask", "column_of", "compare", "comparison", "judged_pair", "look"]

ALIGNED = "aligned"
"""What the other side of a comparison of two is called."""

Facts: TypeAlias = Callable[[Media, str], Mapping[str, bool]]
"""Tells, for a picture and its prompt, which facts hold. The names are the same for every picture."""


def ask(
    name: str,
    judge: Reward,
    media: Sequence[Media],
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> list[float | None]:
    """Return a judge's score of each picture; None where it is not finite.

    Raises:
        ShapeError: the judge gave another number of scores.
    """
    given = judge.score(media, prompts, metadata) if metadata else judge.score(media, prompts)
    scores = [float(score) for score in given]
    if len(scores) != len(prompts):
        raise ShapeError(f"judge '{name}' gave {len(scores)} scores for {len(prompts)} pictures")
    return [finite(score) for score in scores]


def look(facts: Facts, media: Sequence[Media], prompts: Sequence[str]) -> list[dict[str, bool]]:
    """Return which facts hold in each picture.

    Raises:
        DataError: not the same facts for each.
    """
    found = [dict(facts(picture, prompt)) for picture, prompt in zip(media, prompts, strict=True)]
    for one in found:
        if set(one) != set(found[0]) or not one:
            raise DataError(f"every picture must have the same facts, got {sorted(found[0])} and {sorted(one)}")
    return [{name: bool(one[name]) for name in found[0]} for one in found]


def column_of(
    media: Sequence[Media], prompts: Sequence[str], judges: Mapping[str, Reward], facts: Facts | None = None
) -> Column:
    """Return what judges say of one contender's pictures."""
    seen = look(facts, media, prompts) if facts else []
    return Column(
        scores={name: tuple(ask(name, judge, media, prompts)) for name, judge in judges.items()},
        facts={name: tuple(one[name] for one in seen) for name in (seen[0] if seen else ())},
    )


def comparison(standings: Standings, name: str, against: str | None = None) -> Comparison:
    """Compare two contenders pair by pair, with bootstrap intervals over prompts.

    Args:
        standings: holds both.
        name: the side that is called the aligned one.
        against: the side that is called the base; None: the standings'.

    Raises:
        DataError: facts of one side only.
    """
    against = standings.against if against is None else against
    base, aligned = standings.columns[against], standings.columns[name]
    options: dict[str, Any] = {
        "groups": list(standings.prompts),
        "num_draws": standings.num_draws,
        "level": standings.level,
        "seed": standings.seed,
    }

    def score_result(name: str, version: str, aligned: np.ndarray, base: np.ndarray) -> ScoreResult:
        kept = np.isfinite(aligned) & np.isfinite(base)
        if not kept.any():
            return ScoreResult(name, version, None, None, None, None, None, None, len(kept))
        return ScoreResult(
            name,
            version,
            float(base[kept].mean()),
            float(aligned[kept].mean()),
            float(np.median(base[kept])),
            float(np.median(aligned[kept])),
            difference(aligned, base, scale=1.0, **options),
            win_rate(aligned, base, ties=standings.ties, **options),
            int((~kept).sum()),
        )

    def fact_result(name: str, aligned: np.ndarray, base: np.ndarray) -> FactResult:
        return FactResult(name, float(base.mean()), float(aligned.mean()), difference(aligned, base, **options))

    if base.facts.keys() != aligned.facts.keys():
        raise DataError(f"both sides must have the same facts, got {[*base.facts]} and {[*aligned.facts]}")
    names = list(base.facts)
    base_table, aligned_table = (
        np.array([column.facts[fact] for fact in names], dtype=bool).T for column in (base, aligned)
    )  # (N, facts)
    return Comparison(
        items=tuple(_items(standings, base, aligned)),
        judges=tuple(
            score_result(judge, version, *(np.array(c.scores[judge], dtype=float) for c in (aligned, base)))
            for judge, version in standings.judges.items()
        ),
        facts=tuple(fact_result(fact, aligned_table[:, k], base_table[:, k]) for k, fact in enumerate(names)),
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
        level=standings.level,
        num_draws=standings.num_draws,
        seed=standings.seed,
        names=(against, name),
        ties=standings.ties,
        noun=standings.noun,
    )


def _items(standings: Standings, base: Column, aligned: Column) -> list[Item]:
    return [
        Item(
            prompt=prompt,
            seed=int(standings.seeds[i]),
            base_scores={name: base.scores[name][i] for name in standings.judges},
            aligned_scores={name: aligned.scores[name][i] for name in standings.judges},
            base_facts={name: values[i] for name, values in base.facts.items()},
            aligned_facts={name: values[i] for name, values in aligned.facts.items()},
        )
        for i, prompt in enumerate(standings.prompts)
    ]


def judged_pair(
    prompts: Sequence[str],
    seeds: Sequence[int],
    base_images: Sequence[Media],
    aligned_images: Sequence[Media],
    judges: Mapping[str, Reward],
    facts: Facts | None = None,
    **options: Any,
) -> Standings:
    """Score both models' pictures.

    Args:
        prompts: N texts; one that occurs with several seeds is resampled as a whole.
        seeds: N seeds of the initial noise.
        base_images: N pictures by the base model.
        aligned_images: N pictures by the aligned model, from the same prompts, seeds and sampler settings.
        judges: name -> reward. At least one should not have labelled the training data.
        facts: ground truth, where the world has one.
        options: of `Standings`: ``num_draws``, ``level``, ``seed``, ``ties``, ``setting``.

    Raises:
        ShapeError: not equally many of everything.
        DataError: no pairs, or nobody to judge them.
    """
    counts = {len(prompts), len(seeds), len(base_images), len(aligned_images)}
    if len(counts) != 1:
        raise ShapeError(
            f"expected equally many prompts, seeds, base and aligned images, got {len(prompts)}, {len(seeds)}, "
            f"{len(base_images)} and {len(aligned_images)}"
        )
    if counts == {0} or not (judges or facts):
        raise DataError("nothing to compare: give pairs of images, and judges or facts")
    columns = {
        BASE: column_of(base_images, prompts, judges, facts),
        ALIGNED: column_of(aligned_images, prompts, judges, facts),
    }
    versions = {name: judge.info.version for name, judge in judges.items()}
    return Standings(tuple(prompts), tuple(int(seed) for seed in seeds), columns, versions, **options)


def compare(
    prompts: Sequence[str],
    seeds: Sequence[int],
    base_images: Sequence[Media],
    aligned_images: Sequence[Media],
    judges: Mapping[str, Reward],
    facts: Facts | None = None,
    **options: Any,
) -> Comparison:
    """Score both models' pictures and compare them pair by pair; see `judged_pair` and `comparison`."""
    standings = judged_pair(prompts, seeds, base_images, aligned_images, judges, facts, **options)
    return comparison(standings, ALIGNED)

"""Which pairs a reader is shown: a sample that nobody picked, and both ends of the ranking."""

from __future__ import annotations

from diffpref.core.randomness import Random
from diffpref.evaluation.results import Comparison, Item

__all__ = ["gain", "order_by_gain", "random_sample"]


def random_sample(num_items: int, size: int, seed: int = 0) -> list[int]:
    """Return ``size`` positions (all, if there are fewer), drawn by the seed alone. A smaller sample is a prefix."""
    return Random(seed).numpy("report sample").permutation(num_items)[:size].tolist()


def gain(item: Item) -> tuple[float, float] | None:
    """Return by how much the aligned picture is better: facts right first, then the first judge's score.

    None where the first judge, the only measure if there are no facts, has no finite score for both sides.
    """
    facts = sum(item.aligned_facts.values()) - sum(item.base_facts.values())
    name = next(iter(item.base_scores), None)
    base, aligned = (item.base_scores[name], item.aligned_scores[name]) if name is not None else (None, None)
    if base is None or aligned is None:
        return (float(facts), 0.0) if item.base_facts else None
    return float(facts), aligned - base


def order_by_gain(comparison: Comparison) -> tuple[list[int], list[int]]:
    """Return the positions of the pairs that improved, best first, and of those that got worse, worst first."""
    gains = {i: g for i, item in enumerate(comparison.items) if (g := gain(item)) is not None}
    better = sorted((i for i, g in gains.items() if g > (0.0, 0.0)), key=lambda i: gains[i], reverse=True)
    worse = sorted((i for i, g in gains.items() if g < (0.0, 0.0)), key=lambda i: gains[i])
    return better, worse

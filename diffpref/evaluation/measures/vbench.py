"""VBench's total: 16 dimensions normalised by fixed ranges, weighted into quality, semantics and their sum.

The constants are those of the official ``scripts/cal_final_score.py``. Preference training on clips that were judged
one by one lowers the dynamic degree while aesthetics rise: print both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffpref.core.errors import DataError, suggest

__all__ = ["QUALITY", "SEMANTIC", "VBENCH_RANGES", "VBENCH_WEIGHTS", "VBenchScore", "vbench_score"]

QUALITY = (
    "subject consistency",
    "background consistency",
    "temporal flickering",
    "motion smoothness",
    "aesthetic quality",
    "imaging quality",
    "dynamic degree",
)
SEMANTIC = (
    "object class",
    "multiple objects",
    "human action",
    "color",
    "spatial relationship",
    "scene",
    "appearance style",
    "temporal style",
    "overall consistency",
)
VBENCH_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys((*QUALITY, *SEMANTIC), (0.0, 1.0)),
    "subject consistency": (0.1462, 1.0),
    "background consistency": (0.2615, 1.0),
    "temporal flickering": (0.6293, 1.0),
    "motion smoothness": (0.706, 0.9975),
    "scene": (0.0, 0.8222),
    "appearance style": (0.0009, 0.2855),
    "temporal style": (0.0, 0.364),
    "overall consistency": (0.0, 0.364),
}
"""Dimension -> the raw values that become 0 and 1."""
VBENCH_WEIGHTS: Mapping[str, float] = {**dict.fromkeys((*QUALITY, *SEMANTIC), 1.0), "dynamic degree": 0.5}
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4.0, 1.0


@dataclass(frozen=True)
class VBenchScore:
    """What the leaderboard prints, 0..1 for usual videos; it clamps nothing.

    Args:
        total: (4 quality + semantic) / 5.
        quality: weighted mean of seven dimensions.
        semantic: mean of nine dimensions.
        dimensions: normalised values.
    """

    total: float
    quality: float
    semantic: float
    dimensions: Mapping[str, float]


def vbench_score(raw: Mapping[str, float]) -> VBenchScore:
    """Return the total of raw values of all 16 dimensions, spelt with spaces or underscores.

    Raises:
        DataError: a dimension is missing or unknown.
    """
    values = {name.replace("_", " "): value for name, value in raw.items()}
    if unknown := [name for name in values if name not in VBENCH_RANGES]:
        raise DataError(f"VBench has no dimension '{unknown[0]}'{suggest(unknown[0], VBENCH_RANGES)}")
    if missing := [name for name in VBENCH_RANGES if name not in values]:
        raise DataError(f"the total of VBench needs all 16 dimensions; missing: {', '.join(missing)}")
    scaled = {name: (values[name] - low) / (high - low) for name, (low, high) in VBENCH_RANGES.items()}

    def mean(names: tuple[str, ...]) -> float:
        return sum(VBENCH_WEIGHTS[name] * scaled[name] for name in names) / sum(VBENCH_WEIGHTS[name] for name in names)

    quality, semantic = mean(QUALITY), mean(SEMANTIC)
    total = (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    return VBenchScore(total, quality, semantic, scaled)

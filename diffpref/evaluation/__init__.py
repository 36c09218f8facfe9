"""Judge a base and an aligned model on the same prompts and seeds, and write down what was found."""

from diffpref.evaluation.compare import Facts, compare
from diffpref.evaluation.results import Comparison, FactResult, Item, ScoreResult
from diffpref.evaluation.statistics import (
    Interval,
    WinRate,
    bootstrap_interval,
    difference,
    sign_test,
    wilson_interval,
    win_rate,
)

__all__ = [
    "Comparison",
    "FactResult",
    "Facts",
    "Interval",
    "Item",
    "ScoreResult",
    "WinRate",
    "bootstrap_interval",
    "compare",
    "difference",
    "sign_test",
    "wilson_interval",
    "win_rate",
]

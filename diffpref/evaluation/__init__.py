"""Judge a base, aligned models and others on the same prompts and seeds, and write down what was found.

`Standings` hold every number, `make_table` derives what a report prints, `comparison` is the view of two contenders.
"""

from diffpref.evaluation.compare import Facts, compare, comparison, judged_pair
from diffpref.evaluation.contenders import Contender
from diffpref.evaluation.plan import EvaluationPlan
from diffpref.evaluation.results import Comparison, FactResult, Item, ScoreResult
from diffpref.evaluation.standings import Column, Standings
from diffpref.evaluation.statistics import (
    Interval,
    WinRate,
    bootstrap_interval,
    difference,
    sign_test,
    wilson_interval,
    win_rate,
)
from diffpref.evaluation.table import Table, make_table

__all__ = [
    "Column",
    "Comparison",
    "Contender",
    "EvaluationPlan",
    "FactResult",
    "Facts",
    "Interval",
    "Item",
    "ScoreResult",
    "Standings",
    "Table",
    "WinRate",
    "bootstrap_interval",
    "compare",
    "comparison",
    "difference",
    "judged_pair",
    "make_table",
    "sign_test",
    "wilson_interval",
    "win_rate",
]

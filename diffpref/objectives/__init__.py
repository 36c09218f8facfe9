"""Objectives: pure functions from likelihoods and labels to losses. They never see a model.

    from diffpref import objectives
    loss = objectives.dpo(chosen_log_ratio=a, rejected_log_ratio=b, beta=0.1)          # (B,)

Each is one decorated function in a file of this package; `registry` finds them, those of other distributions too.
"""

from __future__ import annotations

# Not lazily: importing the submodule `dpo` binds the package's attribute to the module, these lines to the function.
from diffpref.objectives.base import Objective, ObjectiveSpec, objective, registry
from diffpref.objectives.compose import Composition, compose, reduce_sums
from diffpref.objectives.dpo import dpo
from diffpref.objectives.ipo import ipo
from diffpref.objectives.metrics import reward_metrics
from diffpref.objectives.nll import nll

__all__ = [
    "Composition",
    "Objective",
    "ObjectiveSpec",
    "compose",
    "dpo",
    "ipo",
    "nll",
    "objective",
    "reduce_sums",
    "registry",
    "reward_metrics",
]

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
from diffpref.objectives.dpop import dpop
from diffpref.objectives.hinge import rso, rso_hinge, rso_sigmoid_norm, slic_hf, slic_hf_target
from diffpref.objectives.ipo import ipo
from diffpref.objectives.label_noise import cdpo, rdpo
from diffpref.objectives.length import ln_dpo, r_dpo
from diffpref.objectives.metrics import reward_metrics
from diffpref.objectives.nll import nll
from diffpref.objectives.odds_ratio import asft, orpo
from diffpref.objectives.reference_free import alphapo, cpo, simpo
from diffpref.objectives.regularized import rpo

__all__ = [
    "Composition",
    "Objective",
    "ObjectiveSpec",
    "alphapo",
    "asft",
    "cdpo",
    "compose",
    "cpo",
    "dpo",
    "dpop",
    "ipo",
    "ln_dpo",
    "nll",
    "objective",
    "orpo",
    "r_dpo",
    "rdpo",
    "reduce_sums",
    "registry",
    "reward_metrics",
    "rpo",
    "rso",
    "rso_hinge",
    "rso_sigmoid_norm",
    "simpo",
    "slic_hf",
    "slic_hf_target",
]

"""Likelihoods: how model outputs become (surrogate) log-likelihoods. Arithmetic only."""

from __future__ import annotations

from diffpref.likelihood._registry import registry
from diffpref.likelihood.beta_units import BETA_UNITS, BetaUnit, convert_beta, mean_elbo_weight
from diffpref.likelihood.denoising import DenoisingLikelihood
from diffpref.likelihood.divergence import answer_divergence, jensen_shannon
from diffpref.likelihood.head import Head
from diffpref.likelihood.score import ScoreLikelihood
from diffpref.likelihood.steps import mean_by_step
from diffpref.likelihood.tokens import TokenLikelihood
from diffpref.likelihood.weighting import WEIGHTINGS, NoiseSchedule, Weighting, kappa

__all__ = [
    "BETA_UNITS",
    "WEIGHTINGS",
    "BetaUnit",
    "DenoisingLikelihood",
    "Head",
    "NoiseSchedule",
    "ScoreLikelihood",
    "TokenLikelihood",
    "Weighting",
    "answer_divergence",
    "convert_beta",
    "jensen_shannon",
    "kappa",
    "mean_by_step",
    "mean_elbo_weight",
    "registry",
]

"""Likelihoods: how model outputs become (surrogate) log-likelihoods. Arithmetic only."""

from __future__ import annotations

from diffpref.likelihood.denoising import DenoisingLikelihood
from diffpref.likelihood.weighting import WEIGHTINGS, NoiseSchedule, Weighting, kappa

__all__ = ["WEIGHTINGS", "DenoisingLikelihood", "NoiseSchedule", "Weighting", "kappa"]

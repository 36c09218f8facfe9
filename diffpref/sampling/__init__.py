"""Rollouts over a role: from prompts and seeds to latents and pictures, or to answers."""

from __future__ import annotations

from diffpref.sampling.guidance import GuidedRole
from diffpref.sampling.hidden import HiddenSampler, HiddenSettings
from diffpref.sampling.inversion import (
    InversionSettings,
    InversionTrajectory,
    Inverted,
    inversion_noise,
    inversion_trajectory,
    invert,
)
from diffpref.sampling.mixture import GeometricMixture, MixedRole, mixture_of
from diffpref.sampling.sampler import Sampler, SamplerSettings, sample_latents
from diffpref.sampling.text import TextSampler, TextSettings

__all__ = [
    "GeometricMixture",
    "GuidedRole",
    "HiddenSampler",
    "HiddenSettings",
    "InversionSettings",
    "InversionTrajectory",
    "Inverted",
    "MixedRole",
    "Sampler",
    "SamplerSettings",
    "TextSampler",
    "TextSettings",
    "inversion_noise",
    "inversion_trajectory",
    "invert",
    "mixture_of",
    "sample_latents",
]

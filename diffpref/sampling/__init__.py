"""Rollouts over a role: from prompts and seeds to latents and pictures, or to answers."""

from __future__ import annotations

from diffpref.sampling.guidance import GuidedRole
from diffpref.sampling.hidden import HiddenSampler, HiddenSettings
from diffpref.sampling.inversion import (
    InversionSettings,
    InversionTrajectory,
    Inverted,
    inversion_calls,
    inversion_noise,
    inversion_trajectory,
    invert,
)
from diffpref.sampling.mixture import GeometricMixture, MixedRole, mixture_of
from diffpref.sampling.on_policy import draw_latents, reencode_latents, score_latents
from diffpref.sampling.sampler import OnStep, Sampler, SamplerSettings, decoded, sample_latents, sampling_path
from diffpref.sampling.sdedit import BEGINNINGS, Beginning, SdeditSampler, noised_to, sdedit_begin
from diffpref.sampling.text import TextSampler, TextSettings

__all__ = [
    "BEGINNINGS",
    "Beginning",
    "GeometricMixture",
    "GuidedRole",
    "HiddenSampler",
    "HiddenSettings",
    "InversionSettings",
    "InversionTrajectory",
    "Inverted",
    "MixedRole",
    "OnStep",
    "Sampler",
    "SamplerSettings",
    "SdeditSampler",
    "TextSampler",
    "TextSettings",
    "decoded",
    "draw_latents",
    "inversion_calls",
    "inversion_noise",
    "inversion_trajectory",
    "invert",
    "mixture_of",
    "noised_to",
    "reencode_latents",
    "sample_latents",
    "sampling_path",
    "score_latents",
    "sdedit_begin",
]

"""Rollouts over a role: from prompts and seeds to latents and pictures."""

from __future__ import annotations

from diffpref.sampling.sampler import Sampler, SamplerSettings, sample_latents

__all__ = ["Sampler", "SamplerSettings", "sample_latents"]

"""The discrete schedules of Stable Diffusion checkpoints, read from a scheduler's config; diffusers is not imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, suggest
from diffpref.schedules.base import PredictionType, Schedule, check_prediction_type

__all__ = ["DiscreteSchedule"]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


@dataclass(frozen=True, eq=False)
class DiscreteSchedule(Schedule):
    """A variance-preserving chain: ``alpha_t^2 = alphas_cumprod[t]`` and ``sigma_t^2 = 1 - alphas_cumprod[t]``.

    Args:
        alphas_cumprod: (num_train_timesteps,) float64, falling, from nearly 1 to nearly (or, rescaled, exactly) 0.
        prediction_type: what the network predicts.
        timestep_spacing: how a sampler divides the chain: ``"leading"``, ``"trailing"`` or ``"linspace"``.
        steps_offset: added to the sampler's timesteps in ``"leading"`` spacing.
        set_alpha_to_one: whether DDIM's last step lands on the clean data or on the level of timestep 0.
    """

    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    @property
    def num_train_timesteps(self) -> int:  # type: ignore[override]
        """Length of the chain."""
        return len(self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DiscreteSchedule:
        """Read a diffusers scheduler's config; keys that are absent have the defaults of its ``DDIMScheduler``.

        The table is computed in float64. That of diffusers is float32 and differs by up to 1e-6 relative.

        Raises:
            ConfigError: a flow-matching scheduler, an unknown beta schedule or an unknown prediction type.
        """
        name = str(config.get("_class_name", ""))
        if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
            raise ConfigError(f"scheduler: {name or 'use_flow_sigmas'} is a flow-matching scheduler; use FlowSchedule")
        schedule = cls(
            alphas_cumprod=torch.cumprod(1 - _betas(config), dim=0),
            prediction_type=check_prediction_type(config.get("prediction_type", "epsilon")),
            timestep_spacing=config.get("timestep_spacing", "leading"),
            steps_offset=int(config.get("steps_offset", 0)),
            set_alpha_to_one=bool(config.get("set_alpha_to_one", True)),
        )
        return schedule.rescaled() if config.get("rescale_betas_zero_snr") else schedule

    def rescaled(self) -> DiscreteSchedule:
        """Return the schedule shifted and stretched so that the last timestep is pure noise; twice is once.

        Source: Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891, algorithm 1.
        """
        roots = self.alphas_cumprod.sqrt()
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
        return replace(self, alphas_cumprod=roots.square())

    def level(self, timesteps: Tensor) -> Tensor:
        """Return ``alphas_cumprod`` at integer timesteps, float64 on their device.

        A negative timestep means the clean end of a DDIM trajectory: 1 with ``set_alpha_to_one``, else timestep 0's.
        """
        levels = self.alphas_cumprod.to(timesteps.device)[timesteps.clamp(min=0)]
        return torch.where(timesteps < 0, 1.0, levels) if self.set_alpha_to_one else levels

    def alpha(self, timesteps: Tensor) -> Tensor:
        """Return the factor of the clean data, float64, shaped like ``timesteps``."""
        return self.level(timesteps).sqrt()

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Return the factor of the noise, float64, shaped like ``timesteps``."""
        return (1 - self.level(timesteps)).sqrt()

    def draw(self, place: Tensor) -> Tensor:
        """Return int64 timesteps, 0 .. num_train_timesteps - 1; place 0 is timestep 0."""
        last = self.num_train_timesteps - 1
        return (place * (last + 1)).long().clamp(max=last)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return the signal-to-noise ratio, float64, shaped like ``timesteps``."""
        level = self.level(timesteps)
        return level / (1 - level)

    def elbo_weight(self, timesteps: Tensor) -> Tensor:
        """Return k(t) of the native squared error, float64, shaped like ``timesteps``; infinite at timestep 0.

        The weight of a clean-data error is ``(SNR(t - 1) - SNR(t)) / 2`` (Kingma et al., arXiv:2107.00630, eq. 13). The
        error of an epsilon is SNR times that of the clean data it implies, that of a v-prediction 1 / sigma^2 times.
        """
        snr, sigma = self.snr(timesteps), self.sigma(timesteps)
        before = torch.where(timesteps > 0, self.snr((timesteps - 1).clamp(min=0)), torch.inf)
        if self.prediction_type == "epsilon":
            return 0.5 * (before / snr - 1)
        weight = 0.5 * (before - snr)
        if self.prediction_type == "sample":
            return weight
        if self.prediction_type == "v_prediction":
            return weight * sigma.square()
        return weight * (sigma / (self.alpha(timesteps) + sigma)).square()


def _betas(config: Mapping[str, Any]) -> Tensor:
    trained = config.get("trained_betas")
    if trained is not None:
        return torch.as_tensor(trained, dtype=torch.float64)
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64).square()
    if kind == "squaredcos_cap_v2":
        time = torch.arange(count + 1, dtype=torch.float64) / count
        bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2).square()
        return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    hint = suggest(str(kind), BETA_SCHEDULES) or ";"
    raise ConfigError(f"scheduler.beta_schedule: unknown '{kind}'{hint} known: {', '.join(BETA_SCHEDULES)}")

"""The continuous noise levels of EDM and Stable Video Diffusion: ``clean + s * noise``, s in (0, infinity)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.schedules.base import PredictionType, Schedule

__all__ = ["EdmSchedule"]

RHO = 7.0  # of Karras et al.; diffusers has no setting for it
EDGE = 1e-6  # the normal's quantile is infinite at 0 and 1


@dataclass(frozen=True)
class EdmSchedule(Schedule):
    """Continuous noise levels s, and a network that predicts v.

    Samplers of EDM carry ``clean + s * noise`` and feed it divided by ``sqrt(1 + s^2)``. Noisy data *here* are what the
    network is fed, so that ``alpha = 1 / sqrt(1 + s^2)`` and ``sigma = s / sqrt(1 + s^2)``, v is the usual
    ``alpha * noise - sigma * clean``, and a DDIM step is Euler's step on s. `unscaled` and `scaled` lead from one to
    the other. Timesteps are the levels s; the number that the network is fed as time is `network_time` of them.

    Args:
        prediction_type: ``"v_prediction"``.
        num_train_timesteps: 1: the length of the path in units of the places that `draw` takes.
        sigma_min: the last level of sampling grids before 0.
        sigma_max: their first.
        log_mean: of ln s in training.
        log_std: of ln s in training, > 0.

    Raises:
        ConfigError: another prediction type, levels that do not rise, or a std that is not positive.

    Source: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364; v and
    the numbers are those of Blattmann et al., Stable Video Diffusion, arXiv:2311.15127.
    """

    prediction_type: PredictionType = "v_prediction"
    num_train_timesteps: int = 1
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    log_mean: float = 0.7
    log_std: float = 1.6

    def __post_init__(self) -> None:
        if self.prediction_type != "v_prediction" or self.num_train_timesteps != 1:
            raise ConfigError("an EDM schedule predicts 'v_prediction' on continuous levels, num_train_timesteps 1")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ConfigError(
                f"scheduler.sigma_min and sigma_max: must be > 0 and rise, got {self.sigma_min} and {self.sigma_max}"
            )
        if not self.log_std > 0:
            raise ConfigError(f"log_std: must be > 0, got {self.log_std}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EdmSchedule:
        """Read the config of a diffusers ``EulerDiscreteScheduler`` with continuous timesteps, as SVD has.

        Raises:
            ConfigError: another scheduler, or a setting that is not known here.
        """
        name = str(config.get("_class_name", "EulerDiscreteScheduler"))
        if name != "EulerDiscreteScheduler" or config.get("timestep_type") != "continuous":
            raise ConfigError(f"scheduler: {name} has no continuous timesteps (timestep_type); use DiscreteSchedule")
        expected = {"prediction_type": "v_prediction", "use_karras_sigmas": True, "final_sigmas_type": "zero"}
        for key, value in expected.items():
            found = config.get(key, value if key == "final_sigmas_type" else None)
            if found != value:
                raise ConfigError(f"scheduler.{key}: must be {value!r} with continuous timesteps, got {found!r}")
        levels = {key: config.get(key) for key in ("sigma_min", "sigma_max")}
        for key, level in levels.items():
            if level is None:
                raise ConfigError(f"scheduler.{key}: is needed with continuous timesteps; SVD has 0.002 and 700")
        return cls(**{key: float(level) for key, level in levels.items()})  # type: ignore[arg-type]

    def grid(self, num_steps: int) -> Tensor:
        """Return a sampler's levels, (num_steps,) float64, falling; the step after the last lands on 0.

        Even in the 7th root (Karras et al., eq. 5), as diffusers' ``use_karras_sigmas``.

        Raises:
            ConfigError: no step.
        """
        if num_steps < 1:
            raise ConfigError(f"num_steps: must be at least 1, got {num_steps}")
        roots = (self.sigma_max ** (1 / RHO), self.sigma_min ** (1 / RHO))
        return torch.linspace(*roots, num_steps, dtype=torch.float64).pow(RHO)

    def network_time(self, timesteps: Tensor) -> Tensor:
        """Return ``ln(s) / 4``, float64: what the network is fed as time."""
        return 0.25 * timesteps.to(torch.float64).log()

    def draw(self, place: Tensor) -> Tensor:
        """Return levels whose logarithm is normal, float64; place is the share of draws with less noise."""
        normal = torch.special.ndtri(place.to(torch.float64).clamp(EDGE, 1 - EDGE))
        return (self.log_mean + self.log_std * normal).exp()

    def place(self, timesteps: Tensor) -> Tensor:
        """Return the share of training draws with less noise, in (0, 1), float64: what `draw` takes."""
        return torch.special.ndtr((timesteps.to(torch.float64).log() - self.log_mean) / self.log_std)

    def alpha(self, timesteps: Tensor) -> Tensor:
        """Return ``1 / sqrt(1 + s^2)``, float64."""
        return (1 + timesteps.to(torch.float64).square()).rsqrt()

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Return ``s / sqrt(1 + s^2)``, float64."""
        return timesteps.to(torch.float64) * self.alpha(timesteps)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return ``1 / s^2``, float64."""
        return timesteps.to(torch.float64).square().reciprocal()

    def unscaled(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``clean + s * noise``, what diffusers' samplers carry, (B, ...), of the noisy data of this class."""
        return (noisy / self.coefficients(noisy, timesteps)[0]).to(noisy.dtype)

    def scaled(self, sample: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noisy data of this class, (B, ...), of ``clean + s * noise``; diffusers' ``scale_model_input``."""
        return (sample * self.coefficients(sample, timesteps)[0]).to(sample.dtype)

    def elbo_weight(self, timesteps: Tensor) -> Tensor:
        """Return k(s) of the squared error of v for levels that `draw` gives at uniform places, float64.

        The bound is an integral of the error of the clean data over ln s with the weight ``1 / s^2``; v's error is
        ``(1 + s^2) / s^2`` times that, and levels are drawn with the normal's density p:
        ``k = 1 / ((1 + s^2) p(ln s))``.
        """
        level = timesteps.to(torch.float64)
        score = (level.log() - self.log_mean) / self.log_std
        density = torch.exp(-0.5 * score.square()) / (self.log_std * math.sqrt(2 * math.pi))
        return 1 / ((1 + level.square()) * density)

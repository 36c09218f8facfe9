"""What every noise schedule can do: mix, tell what the network should predict, and convert what it predicted.

``x_t = alpha_t * clean + sigma_t * noise``. Coefficients are computed in float64 and applied in float32 at least
(1 - alpha^2 in half precision is wrong by 15 % at low noise), and the result has the dtype of what is mixed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError

__all__ = ["PREDICTION_TYPES", "PredictionType", "Schedule"]

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)


class Schedule(ABC):
    """A path from clean data to noise, and what the network predicts on it.

    Attributes:
        prediction_type: ``"epsilon"`` (the noise), ``"v_prediction"`` (alpha * noise - sigma * clean), ``"sample"``
            (the clean data) or ``"flow"`` (noise - clean).
        num_train_timesteps: the length of the path in units of ``timesteps``: 1000 integers, or 1 for continuous time.
    """

    prediction_type: PredictionType
    num_train_timesteps: int

    @abstractmethod
    def alpha(self, timesteps: Tensor) -> Tensor:
        """Return the factor of the clean data, float64, shaped like ``timesteps``."""

    @abstractmethod
    def sigma(self, timesteps: Tensor) -> Tensor:
        """Return the factor of the noise, float64, shaped like ``timesteps``."""

    @abstractmethod
    def elbo_weight(self, timesteps: Tensor) -> Tensor:
        """Return k(t) of the native squared error, float64, shaped like ``timesteps``.

        With t uniform, ``-num_train_timesteps * k(t) * sum((prediction - target)^2)`` is an unbiased draw of the ELBO,
        up to a constant that policy and reference share. At the first timestep k is infinite.
        """

    @abstractmethod
    def draw(self, place: Tensor) -> Tensor:
        """Turn places in [0, 1), such as draws of a `Density`, into timesteps of training, shaped alike."""

    def place(self, timesteps: Tensor) -> Tensor:
        """Return where timesteps lie between clean data, 0, and noise, 1, float64, shaped alike."""
        return timesteps.to(torch.float64) / self.num_train_timesteps

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return the signal-to-noise ratio ``alpha^2 / sigma^2``, float64, shaped like ``timesteps``."""
        return (self.alpha(timesteps) / self.sigma(timesteps)).square()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noisy data.

        Args:
            clean: (B, ...) data.
            noise: (B, ...) standard normal.
            timesteps: (B,).
        """
        alpha, sigma = self.coefficients(clean, timesteps)
        return (alpha * clean + sigma * noise).to(clean.dtype)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return (B, ...) what a perfect network would predict for ``add_noise`` of the same arguments."""
        return self._target(self.prediction_type, clean, noise, timesteps)

    def convert(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor, prediction_type: PredictionType) -> Tensor:
        """Return (B, ...) what a network of another prediction type says that means the same clean data and noise.

        Args:
            prediction: (B, ...) of this schedule's own type.
            noisy: (B, ...) what the network was fed.
            timesteps: (B,).
            prediction_type: the other type. Not finite where a prediction implies no clean data, or no noise.
        """
        clean, noise = (read(prediction, noisy, timesteps) for read in (self.to_clean, self.to_noise))
        return self._target(prediction_type, clean, noise, timesteps)

    def _target(self, kind: PredictionType, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if kind == "epsilon":
            return noise
        if kind == "sample":
            return clean
        if kind == "flow":
            return noise - clean
        alpha, sigma = self.coefficients(clean, timesteps)
        return (alpha * noise - sigma * clean).to(clean.dtype)

    def to_clean(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return (B, ...) the clean data that a prediction implies. An epsilon at alpha 0 implies none: not finite."""
        alpha, sigma = self.coefficients(noisy, timesteps)
        if self.prediction_type == "epsilon":
            clean = (noisy - sigma * prediction) / alpha
        elif self.prediction_type == "sample":
            clean = prediction
        elif self.prediction_type == "flow":
            clean = (noisy - sigma * prediction) / (alpha + sigma)
        else:
            clean = (alpha * noisy - sigma * prediction) / (alpha.square() + sigma.square())
        return clean.to(noisy.dtype)

    def to_noise(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return (B, ...) the noise that a prediction implies. A sample at sigma 0 implies none: not finite."""
        alpha, sigma = self.coefficients(noisy, timesteps)
        if self.prediction_type == "epsilon":
            noise = prediction
        elif self.prediction_type == "sample":
            noise = (noisy - alpha * prediction) / sigma
        elif self.prediction_type == "flow":
            noise = (noisy + alpha * prediction) / (alpha + sigma)
        else:
            noise = (alpha * prediction + sigma * noisy) / (alpha.square() + sigma.square())
        return noise.to(noisy.dtype)

    def coefficients(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma that broadcast over ``like`` (B, ...), in float32, or float64 if that is."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (-1, *[1] * (like.dim() - 1))
        return self.alpha(timesteps).to(dtype).view(shape), self.sigma(timesteps).to(dtype).view(shape)


def check_prediction_type(value: str) -> PredictionType:
    """Return a prediction type.

    Raises:
        ConfigError: it is not one of `PREDICTION_TYPES`.
    """
    if value not in PREDICTION_TYPES:
        raise ConfigError(f"prediction_type: must be one of {', '.join(PREDICTION_TYPES)}, got {value!r}")
    return value  # type: ignore[return-value]

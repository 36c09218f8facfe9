"""The weight kappa(t) before a denoiser's mean squared error: one table for all that networks predict."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

__all__ = ["WEIGHTINGS", "NoiseSchedule", "Weighting", "kappa"]

Weighting = Literal["simple", "eps_equiv", "min_snr", "x0", "elbo"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


class NoiseSchedule(Protocol):
    """What the weights need to know of a schedule; those of `diffpref.schedules` have it."""

    @property
    def prediction_type(self) -> str:
        """``"epsilon"``, ``"v_prediction"``, ``"sample"`` or ``"flow"``."""
        ...

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps; 1 for continuous time."""
        ...

    def alpha(self, timesteps: Tensor) -> Tensor:
        """Factor of the clean data, float64."""
        ...

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Factor of the noise, float64."""
        ...

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio, float64."""
        ...

    def elbo_weight(self, timesteps: Tensor) -> Tensor:
        """Weight of the native squared error in the ELBO, float64."""
        ...


def kappa(
    weighting: Weighting,
    schedule: NoiseSchedule,
    timesteps: Tensor,
    *,
    snr_gamma: float = 5.0,
    num_elements: int = 1,
    elbo_start: float = 0.02,
) -> Tensor:
    """Return (N,) float64 weights of native, mean-reduced squared errors.

    Args:
        weighting: ``"simple"``: 1, as in all official codes. ``"eps_equiv"``: as if the error were that of the noise.
            ``"min_snr"``: the clean-data error times min(SNR, gamma). ``"x0"``: as if the error were that of the clean
            data. ``"elbo"``: true nats.
        schedule: alpha, sigma, and what the network predicts.
        timesteps: (N,).
        snr_gamma: the gamma of ``"min_snr"`` (Hang et al., arXiv:2303.09556).
        num_elements: D, elements of a sample; only ``"elbo"`` uses it, because it undoes the mean.
        elbo_start: fraction of the path below which ``"elbo"`` gives weight 0. There its weights grow without bound,
            and with them the variance, so the first 20 of 1000 timesteps are left out of the sum.
    """
    kind = schedule.prediction_type
    if weighting == "simple":
        return torch.ones(timesteps.shape, dtype=torch.float64, device=timesteps.device)
    if weighting == "elbo":
        length = schedule.num_train_timesteps
        weight = 2 * length * num_elements * schedule.elbo_weight(timesteps)
        return torch.where(timesteps >= elbo_start * length, weight, 0.0)
    alpha, sigma, snr = schedule.alpha(timesteps), schedule.sigma(timesteps), schedule.snr(timesteps)
    if weighting == "eps_equiv":
        return {"epsilon": torch.ones_like(snr), "v_prediction": alpha**2, "sample": snr, "flow": alpha**2}[kind]
    clipped = snr.clamp(max=snr_gamma)
    if weighting == "min_snr":
        # gamma / max(SNR, gamma) is min(SNR, gamma) / SNR, but 1 and not 0 / 0 at zero terminal SNR.
        return {
            "epsilon": snr_gamma / snr.clamp(min=snr_gamma),
            "v_prediction": clipped * sigma**2,
            "sample": clipped,
            "flow": clipped * sigma**2,
        }[kind]
    return {"epsilon": 1 / snr, "v_prediction": sigma**2, "sample": torch.ones_like(snr), "flow": sigma**2}[kind]

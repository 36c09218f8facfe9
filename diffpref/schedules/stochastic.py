"""Stochastic sampler steps as Gaussians: their means, deviations, log-densities and divergences.

Log-densities and divergences are *means* over all but the batch dimension, as in the code of DDPO, D3PO, SPO, LPO,
Flow-GRPO and MixGRPO: the betas and clip ranges that they publish hold for the mean.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffpref.schedules.discrete import DiscreteSchedule

__all__ = [
    "FlowStep",
    "cps_logps",
    "dance_sde_step",
    "ddim_distribution",
    "ddim_std",
    "flow_cps_step",
    "flow_sde_step",
    "gaussian_kl",
    "gaussian_logps",
]


class FlowStep(NamedTuple):
    """A Gaussian step of a flow model.

    Args:
        mean: (B, ...) of the next sample.
        std: (B,) its deviation.
        level: (B,) the deviation a unit of time, by which the published code divides its divergence.
    """

    mean: Tensor
    std: Tensor
    level: Tensor


def ddim_std(
    schedule: DiscreteSchedule, timesteps: Tensor, next_timesteps: Tensor, eta: float | Tensor = 1.0
) -> Tensor:
    """Return the deviation of DDIM's step (Song et al., arXiv:2010.02502, eq. 16), float64, shaped like ``timesteps``.

    Args:
        schedule: the chain.
        timesteps: int64, where the sample is.
        next_timesteps: int64, where it lands; negative is the clean end.
        eta: 0 is deterministic, 1 as noisy as DDPM.
    """
    here, there = schedule.level(timesteps), schedule.level(next_timesteps)
    return eta * ((1 - there) / (1 - here) * (1 - here / there)).sqrt()


def ddim_distribution(
    schedule: DiscreteSchedule,
    prediction: Tensor,
    noisy: Tensor,
    timesteps: Tensor,
    next_timesteps: Tensor,
    eta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return mean (B, ...) and deviation (B,) of DDIM's step (Song et al., arXiv:2010.02502, eq. 12), float32 at least.

    Args:
        schedule: alphas, and what the prediction is.
        prediction: (B, ...) of the network.
        noisy: (B, ...) sample at ``timesteps``.
        timesteps: (B,) int64.
        next_timesteps: (B,) int64, where to land; negative is the clean end.
        eta: 0 is deterministic: `gaussian_logps` is not finite then.
    """
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    clean = schedule.to_clean(prediction.to(wide.dtype), wide, timesteps)
    noise = schedule.to_noise(prediction.to(wide.dtype), wide, timesteps)
    std, level = ddim_std(schedule, timesteps, next_timesteps, eta), schedule.level(next_timesteps)
    mean = _broad(level.sqrt(), wide) * clean + _broad((1 - level - std.square()).sqrt(), wide) * noise
    return mean, std.to(wide.dtype)


def gaussian_logps(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density of a step, (B,), a mean over elements; no gradient flows through the sample.

    Args:
        sample: (B, ...) what was drawn.
        mean: (B, ...) of the step.
        std: (B,) its deviation.
    """
    error = ((sample.detach() - mean) / _broad(std, mean)).square().flatten(1).mean(dim=1)
    return -0.5 * error - std.log() - 0.5 * math.log(2 * math.pi)


def gaussian_kl(mean: Tensor, reference_mean: Tensor, std: Tensor) -> Tensor:
    """Return the divergence of two steps with one deviation, (B,), a mean over elements.

    Args:
        mean: (B, ...) of the policy's step.
        reference_mean: (B, ...) of the reference's.
        std: (B,) `FlowStep.level` for what Flow-GRPO's code computes and its betas hold for, `FlowStep.std` for the
            exact divergence, larger by one over the step's length.
    """
    return (mean - reference_mean).square().flatten(1).mean(dim=1) / (2 * std.square())


def flow_sde_step(
    prediction: Tensor,
    noisy: Tensor,
    sigmas: Tensor,
    next_sigmas: Tensor,
    *,
    noise_level: float = 0.7,
    second_sigma: float | None = None,
) -> FlowStep:
    r"""Return the step of an SDE with the marginals of a flow model's ODE (Flow-GRPO, arXiv:2505.05470).

    .. math:: s = a\sqrt{\frac{\sigma}{1 - \sigma}}, \quad
              \mu = x\Big(1 + \frac{s^2}{2\sigma}d\Big) + v\Big(1 + \frac{s^2(1 - \sigma)}{2\sigma}\Big)d, \quad
              d = \sigma_{\mathrm{next}} - \sigma

    Args:
        prediction: (B, ...) velocity, noise minus clean data.
        noisy: (B, ...) sample at ``sigmas``.
        sigmas: (B,) in (0, 1].
        next_sigmas: (B,) smaller than ``sigmas``.
        noise_level: a above; 0 is Euler's step of the ODE.
        second_sigma: takes the place of sigma in s where sigma is 1, there where the code takes the grid's second;
            ``next_sigmas`` where not given.

    Source: yifan123/flow_grpo ``sd3_sde_with_logprob.py``.
    """
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    time, following = sigmas.to(torch.float64), next_sigmas.to(torch.float64)
    second = following if second_sigma is None else torch.full_like(following, second_sigma)
    level = noise_level * (time / (1 - torch.where(time == 1, second, time))).sqrt()
    step, pull = following - time, level.square() / (2 * time)
    of_sample, of_velocity = 1 + pull * step, (1 + pull * (1 - time)) * step
    mean = _broad(of_sample, wide) * wide + _broad(of_velocity, wide) * prediction.to(wide.dtype)
    return FlowStep(mean, (level * (-step).sqrt()).to(wide.dtype), level.to(wide.dtype))


def flow_cps_step(
    prediction: Tensor, noisy: Tensor, sigmas: Tensor, next_sigmas: Tensor, *, noise_level: float = 0.8
) -> tuple[Tensor, Tensor]:
    r"""Return mean (B, ...) and deviation (B,) of a step that keeps the noise's total right (Flow-CPS).

    .. math:: s = \sigma_{\mathrm{next}} \sin\frac{a\pi}{2}, \quad
              \mu = (1 - \sigma_{\mathrm{next}})\,\hat x_0 + \sqrt{\sigma_{\mathrm{next}}^2 - s^2}\;\hat n

    Args:
        prediction: (B, ...) velocity, noise minus clean data.
        noisy: (B, ...) sample at ``sigmas``.
        sigmas: (B,) in (0, 1].
        next_sigmas: (B,) smaller than ``sigmas``.
        noise_level: a above; 0 is Euler's step of the ODE.

    Source: yifan123/flow_grpo, late 2025; its log-probability is `cps_logps`.
    """
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    time, following = sigmas.to(torch.float64), next_sigmas.to(torch.float64)
    velocity, std = prediction.to(wide.dtype), following * math.sin(noise_level * math.pi / 2)
    clean = wide - _broad(time, wide) * velocity
    noise = wide + _broad(1 - time, wide) * velocity
    mean = _broad(1 - following, wide) * clean + _broad((following.square() - std.square()).sqrt(), wide) * noise
    return mean, std.to(wide.dtype)


def cps_logps(sample: Tensor, mean: Tensor) -> Tensor:
    """Return Flow-CPS's log-probability of a step, (B,): minus the mean squared error, its constants left out."""
    return -(sample.detach() - mean).square().flatten(1).mean(dim=1)


def dance_sde_step(
    prediction: Tensor, noisy: Tensor, sigmas: Tensor, next_sigmas: Tensor, *, eta: float = 0.3
) -> FlowStep:
    r"""Return the step of DanceGRPO's SDE (arXiv:2505.07818).

    .. math:: \mu = x + d\,v - \tfrac12\eta^2 d\,\nabla, \quad \nabla = -\frac{x - (1 - \sigma)\hat x_0}{\sigma^2},
              \quad \mathrm{std} = \eta\sqrt{-d}

    Args:
        prediction: (B, ...) velocity, noise minus clean data.
        noisy: (B, ...) sample at ``sigmas``.
        sigmas: (B,) in (0, 1].
        next_sigmas: (B,) smaller than ``sigmas``.
        eta: 0 is Euler's step of the ODE.

    Source: XueZeyue/DanceGRPO.
    """
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    time, step = sigmas.to(torch.float64), (next_sigmas - sigmas).to(torch.float64)
    velocity = prediction.to(wide.dtype)
    clean = wide - _broad(time, wide) * velocity
    score = -(wide - _broad(1 - time, wide) * clean) / _broad(time.square(), wide)
    mean = wide + _broad(step, wide) * velocity - 0.5 * eta**2 * _broad(step, wide) * score
    return FlowStep(mean, (eta * (-step).sqrt()).to(wide.dtype), torch.full_like(time, eta).to(wide.dtype))


def _broad(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))

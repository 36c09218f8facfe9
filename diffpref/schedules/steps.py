"""Pure sampler steps: from a noisy sample and a prediction to the next, less noisy sample."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, suggest
from diffpref.schedules.base import Schedule
from diffpref.schedules.discrete import DiscreteSchedule
from diffpref.schedules.edm import EdmSchedule
from diffpref.schedules.flow import FlowSchedule

__all__ = [
    "SPACINGS",
    "ddim_landings",
    "ddim_path",
    "ddim_step",
    "ddim_timesteps",
    "dpmpp_2m_step",
    "dpmpp_2m_timesteps",
]

SPACINGS = ("leading", "trailing", "linspace")


def ddim_timesteps(schedule: DiscreteSchedule, num_steps: int, spacing: str | None = None) -> Tensor:
    """Return DDIM's timesteps, falling, int64 on the CPU; `ddim_landings` says where each step goes.

    Args:
        schedule: its ``timestep_spacing`` and ``steps_offset`` are the checkpoint's.
        num_steps: number of network calls.
        spacing: overrides the checkpoint's.

    Raises:
        ConfigError: an unknown spacing, or more steps than the chain has.
    """
    spacing, total = _check(schedule, num_steps, spacing)
    if spacing == "linspace":
        return torch.linspace(0, total - 1, num_steps, dtype=torch.float64).round().long().flip(0)
    if spacing == "leading":
        grid = torch.arange(num_steps, dtype=torch.float64) * (total // num_steps)
        return _inside(grid.round().long().flip(0) + schedule.steps_offset, schedule)
    return _trailing(total, num_steps)


def ddim_landings(schedule: DiscreteSchedule, timesteps: Tensor) -> Tensor:
    """Return where the steps from DDIM's timesteps land, int64; -1 is the clean data.

    As in diffusers' ``DDIMScheduler`` every step goes ``num_train_timesteps // num_steps`` down, whatever the grid.
    That is the next timestep only where the number of steps divides the chain; elsewhere the network is told one
    timestep while the sample lies at a neighbouring one. Kept, so that a seed gives the stock pipeline's picture.

    Args:
        schedule: the chain.
        timesteps: (num_steps,) of `ddim_timesteps`.
    """
    return (timesteps - schedule.num_train_timesteps // len(timesteps)).clamp(min=-1)


def ddim_path(schedule: Schedule, num_steps: int) -> tuple[Tensor, Tensor]:
    """Return where DDIM's steps begin and where they land, (num_steps,) each.

    On a chain: `ddim_timesteps` and `ddim_landings`. On a flow: `FlowSchedule.grid`, each level landing on the next and
    the last on 0; there a DDIM step is Euler's step of the flow's equation, ``x + (t' - t) * prediction``. On EDM's
    levels `EdmSchedule.grid` alike; there it is Euler's step of what `EdmSchedule.unscaled` gives.

    Raises:
        ConfigError: too few or too many steps, or a schedule of another kind.
    """
    if isinstance(schedule, FlowSchedule | EdmSchedule):
        levels = schedule.grid(num_steps)
        return levels, torch.cat([levels[1:], levels.new_zeros(1)])
    if isinstance(schedule, DiscreteSchedule):
        timesteps = ddim_timesteps(schedule, num_steps)
        return timesteps, ddim_landings(schedule, timesteps)
    raise ConfigError(f"no DDIM steps are known for a {type(schedule).__name__}")


def ddim_step(
    schedule: Schedule, prediction: Tensor, noisy: Tensor, timesteps: Tensor, next_timesteps: Tensor
) -> Tensor:
    """Take one deterministic DDIM step (Song et al., arXiv:2010.02502, eq. 12 with sigma 0).

    Args:
        schedule: alphas, and what the prediction is.
        prediction: (B, ...) of the network.
        noisy: (B, ...) sample at ``timesteps``.
        timesteps: (B,) int64, of a flow or of EDM floating-point levels.
        next_timesteps: (B,) where to land; the clean end is -1, of levels 0. Larger than ``timesteps``: inversion.

    Returns:
        (B, ...) sample at ``next_timesteps``, in the dtype of ``noisy``.
    """
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    clean = schedule.to_clean(prediction.to(wide.dtype), wide, timesteps)
    noise = schedule.to_noise(prediction.to(wide.dtype), wide, timesteps)
    return schedule.add_noise(clean, noise, next_timesteps).to(noisy.dtype)


def dpmpp_2m_timesteps(schedule: DiscreteSchedule, num_steps: int, spacing: str | None = None) -> Tensor:
    """Return DPM-Solver++'s timesteps as diffusers' ``DPMSolverMultistepScheduler`` does, falling, int64 on the CPU.

    Raises:
        ConfigError: an unknown spacing, or more steps than the chain has.
    """
    spacing, total = _check(schedule, num_steps, spacing)
    if spacing == "linspace":
        return torch.linspace(0, total - 1, num_steps + 1, dtype=torch.float64).round().long().flip(0)[:-1]
    if spacing == "leading":
        grid = torch.arange(num_steps + 1) * (total // (num_steps + 1))
        return _inside(grid.flip(0)[:-1] + schedule.steps_offset, schedule)
    return _trailing(total, num_steps)


def dpmpp_2m_step(
    schedule: DiscreteSchedule,
    clean: Tensor,
    noisy: Tensor,
    timesteps: Tensor,
    next_timesteps: Tensor,
    previous_clean: Tensor | None = None,
    previous_timesteps: Tensor | None = None,
) -> Tensor:
    """Take one deterministic DPM-Solver++(2M) step, midpoint form (Lu et al., arXiv:2211.01095, algorithm 2).

    Args:
        schedule: alphas and sigmas.
        clean: (B, ...) the clean data that the network implies at ``timesteps`` (`Schedule.to_clean`).
        noisy: (B, ...) sample at ``timesteps``.
        timesteps: (B,) int64.
        next_timesteps: (B,) int64, where to land; -1 is noise-free.
        previous_clean: (B, ...) ``clean`` of the step before; None takes a first-order step, as the first step and,
            with few steps, the last do.
        previous_timesteps: (B,) int64, those of ``previous_clean``.

    Returns:
        (B, ...) sample at ``next_timesteps``, in the dtype of ``noisy``.

    Raises:
        ConfigError: only one of ``previous_clean`` and ``previous_timesteps`` is given.
    """
    if (previous_clean is None) != (previous_timesteps is None):
        raise ConfigError("dpmpp_2m_step: give previous_clean and previous_timesteps, or neither")
    wide = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
    ended = next_timesteps < 0
    alpha = torch.where(ended, 1.0, schedule.alpha(next_timesteps))
    sigma = torch.where(ended, 0.0, schedule.sigma(next_timesteps))
    here = _half_log_snr(schedule, timesteps)
    step = (alpha / sigma).log() - here
    blend, pull = sigma / schedule.sigma(timesteps), -alpha * torch.expm1(-step)
    direction = clean.to(wide.dtype)
    if previous_clean is not None and previous_timesteps is not None:
        # D0 + D1 / 2 with D1 = (D0 - D_before) / r, r = last step / this step. The step to the clean end has no length.
        ratio = torch.where(ended, 0.0, step / (here - _half_log_snr(schedule, previous_timesteps)))
        direction = direction + 0.5 * _broad(ratio, wide) * (direction - previous_clean.to(wide.dtype))
    return (_broad(blend, wide) * wide + _broad(pull, wide) * direction).to(noisy.dtype)


def _half_log_snr(schedule: DiscreteSchedule, timesteps: Tensor) -> Tensor:
    return (schedule.alpha(timesteps) / schedule.sigma(timesteps)).log()


def _broad(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def _check(schedule: DiscreteSchedule, num_steps: int, spacing: str | None) -> tuple[str, int]:
    spacing, total = spacing or schedule.timestep_spacing, schedule.num_train_timesteps
    if spacing not in SPACINGS:
        hint = suggest(spacing, SPACINGS) or ";"
        raise ConfigError(f"timestep_spacing: unknown '{spacing}'{hint} known: {', '.join(SPACINGS)}")
    if not 1 <= num_steps <= total:
        raise ConfigError(f"num_steps: must be in 1...{total}, got {num_steps}")
    return spacing, total


def _inside(grid: Tensor, schedule: DiscreteSchedule) -> Tensor:
    if int(grid.max()) >= schedule.num_train_timesteps:
        raise ConfigError(f"num_steps: steps_offset {schedule.steps_offset} leads beyond the chain; take fewer steps")
    return grid


def _trailing(total: int, num_steps: int) -> Tensor:
    return (total - torch.arange(num_steps, dtype=torch.float64) * (total / num_steps)).round().long() - 1

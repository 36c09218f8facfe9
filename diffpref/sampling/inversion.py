"""Inversion: from clean latents to noisy ones near a denoiser's own trajectory, by DDIM, ReNoise or Euler's steps.

Any role inverts: the policy, as in the code of InPO and SmPO, or the reference. Rows of one batch may have different
timesteps; each is what it would be alone. Rows that have landed are shown to the network again, unchanged, until the
last of them has, over all processes: sharded training hangs where ranks differ in their number of model calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Role, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Key, Random
from diffpref.sampling.sampler import OnStep
from diffpref.schedules import (
    LANDINGS,
    DiscreteSchedule,
    FlowSchedule,
    Landing,
    Schedule,
    Start,
    Told,
    ddim_std,
    inversion_direction,
    inversion_path,
    inversion_step,
    started_at,
)

__all__ = [
    "InversionSettings",
    "InversionTrajectory",
    "Inverted",
    "inversion_calls",
    "inversion_noise",
    "inversion_trajectory",
    "invert",
]


@dataclass(frozen=True)
class InversionSettings:
    """How clean latents are inverted.

    Args:
        num_steps: levels of the grid: 10 in InPO's code, in SmPO's 5 for SD 1.5 and 10 for SDXL.
        landing: ``"official"``, ``"exact"`` or ``"snap"``; see `diffpref.schedules.inversion`.
        eta: noise that each step adds, 0.1 in InPO's code, 0 in SmPO's; chains of timesteps only. The deterministic
            part of the step is not made smaller for it.
        renoise_steps: corrections of each step: the network is asked again where the step led to, and the step is taken
            anew along the weighted mean of what it said. 0 is DDIM inversion, 1 is SmPO's.
        renoise_weights: of the ``renoise_steps + 1`` predictions, summing to 1; None weighs them equally. With all the
            weight on the last it is a fixed-point iteration towards the exact inverse of the sampler's step.
        start: the level of clean latents; see `diffpref.schedules.inversion.started_at`. Where it is timestep 0's,
            landing there exactly is no step at all, and implies no noise of use: draw timesteps from 1.
        told: what the network is told, ``"source"`` or ``"target"`` of a step; None: see
            `diffpref.schedules.inversion.inversion_path`.
        spacing: of a chain's grid, ``"leading"`` as in InPO's code; None takes the checkpoint's, so that with the exact
            landing a sampler of as many steps comes back by the same levels.

    Raises:
        ConfigError: a setting out of its range.

    Source: Lu et al., InPO, arXiv:2503.18454, and SmPO-Diffusion, arXiv:2506.02698 (JaydenLyh/InPO and SmPO,
    ``train.py``); Garibi et al., ReNoise, arXiv:2403.14602.
    """

    num_steps: int = 10
    landing: Landing = "official"
    eta: float = 0.0
    renoise_steps: int = 0
    renoise_weights: tuple[float, ...] | None = None
    start: Start = "scheduler"
    told: Told | None = None
    spacing: str | None = "leading"

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.renoise_steps < 0 or self.eta < 0:
            raise ConfigError("num_steps: must be at least 1; renoise_steps and eta: at least 0")
        for name, value, known in (
            ("landing", self.landing, LANDINGS),
            ("start", self.start, get_args(Start)),
            ("told", self.told or "source", get_args(Told)),
        ):
            if value not in known:
                raise ConfigError(f"{name}: must be one of {', '.join(known)}, got '{value}'")
        weights = self.weights
        if len(weights) != self.renoise_steps + 1 or abs(sum(weights) - 1) > 1e-6:
            raise ConfigError(
                f"renoise_weights: must be {self.renoise_steps + 1} numbers that sum to 1, got {list(weights)}"
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of a step's predictions."""
        if self.renoise_weights is not None:
            return self.renoise_weights
        return (1 / (self.renoise_steps + 1),) * (self.renoise_steps + 1)


class Inverted(NamedTuple):
    """Noisy latents and what they imply, float32 at least, without gradient.

    ``alpha * clean + sigma * noise == noisy`` at ``timesteps``, wherever the inversion landed.

    Args:
        noisy: (B, ...) latents.
        timesteps: (B,) of training, at which networks are asked about ``noisy``.
        noise: (B, ...) what lies between clean and noisy latents; in InPO's paper tau.
        target: (B, ...) what the network is to predict for it, by the prediction type.
    """

    noisy: Tensor
    timesteps: Tensor
    noise: Tensor
    target: Tensor


class InversionTrajectory(NamedTuple):
    """Latents on the way from clean to pure noise, and what the inverter said of them.

    Args:
        noisy: (B, N, ...) latents as the network was shown them, a step behind what it was told.
        timesteps: (N,) what it was told, rising.
        predictions: (B, N, ...) its answers.
    """

    noisy: Tensor
    timesteps: Tensor
    predictions: Tensor


def inversion_noise(random: Random, keys: Sequence[Key], shape: Sequence[int]) -> Callable[[int], Tensor]:
    """Return keyed noise for inversions with an eta: a function of the step, giving ``(B, *shape)`` float32 on the CPU.

    Args:
        random: of the run.
        keys: B keys; each row has its own, so winner and loser of a pair need two.
        shape: of a row's latents.
    """
    return lambda step: random.normal("inversion", [(*key, step) for key in keys], shape)


def inversion_calls(schedule: Schedule, timesteps: Tensor, settings: InversionSettings = InversionSettings()) -> float:
    """Return how often the inverter is asked about a row, on average over timesteps.

    Args:
        schedule: the levels.
        timesteps: (T,) all those that are drawn, such as every one of a chain.
        settings: of the inversion.

    >>> from diffpref.schedules import DiscreteSchedule
    >>> schedule = DiscreteSchedule.from_config({"steps_offset": 1})
    >>> inversion_calls(schedule, torch.arange(1000))
    6.382
    """
    path = inversion_path(
        schedule, timesteps, settings.num_steps, settings.landing, told=settings.told, spacing=settings.spacing
    )
    return path.lengths.double().mean().item() * (settings.renoise_steps + 1)


@torch.no_grad()
def invert(
    role: Role,
    schedule: Schedule,
    clean: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    settings: InversionSettings = InversionSettings(),
    *,
    noise: Callable[[int], Tensor] | None = None,
    most: Callable[[int], int] = int,
    on_step: OnStep | None = None,
) -> Inverted:
    """Invert clean latents up to their timesteps, conditionally and without guidance.

    On a chain DDIM inversion, whatever the prediction type, along the noise that predictions imply; on a flow Euler's
    steps of the ODE, ``x + (t' - t) * v(x, t')``. The role is asked ``renoise_steps + 1`` times a step.

    Args:
        role: the inverter.
        schedule: alphas, sigmas and the prediction type.
        clean: (B, ...) latents; float64 stays float64, anything else becomes float32.
        timesteps: (B,) drawn timesteps.
        conditioning: B rows.
        settings: grid, landing, corrections.
        noise: the standard normal numbers of a step, (B, ...), such as `inversion_noise`; needed with an eta.
        most: from this batch's number of steps to the largest over all processes; each then makes the same calls.
        on_step: sees the latents after each step, and may change them.

    Raises:
        ConfigError: settings that the schedule does not know, or an eta without noise.
    """
    if settings.eta and not isinstance(schedule, DiscreteSchedule):
        raise ConfigError(f"eta: only chains of timesteps have one; set 0, got {settings.eta:g}")
    if settings.eta and noise is None:
        raise ConfigError(f"eta: needs noise where it is not 0, got {settings.eta:g}; pass inversion_noise(...)")
    schedule = started_at(schedule, settings.start)
    path = inversion_path(
        schedule, timesteps, settings.num_steps, settings.landing, told=settings.told, spacing=settings.spacing
    )
    x = origin = clean.to(torch.promote_types(clean.dtype, torch.float32))
    for step in range(most(int(path.lengths.max()))):
        column = min(step, path.sources.shape[1] - 1)  # other ranks may go on when all rows here have landed
        sources, targets, told = (part[:, column].to(x.device) for part in (path.sources, path.targets, path.told))
        moved, mean = x, torch.zeros_like(x)
        for index, weight in enumerate(settings.weights):
            asked = Rows("denoising", {"noisy": moved, "timesteps": told}, conditioning, groups={})
            direction = inversion_direction(schedule, role(asked)["prediction"].to(x.dtype), moved, told)
            mean = mean + weight * direction
            along = mean if index == settings.renoise_steps else direction
            moved = inversion_step(schedule, along, x, sources, targets)
        if settings.eta and noise is not None and isinstance(schedule, DiscreteSchedule):
            std = ddim_std(schedule, targets, sources, settings.eta).to(x.dtype)
            moved = moved + _broad(std, x) * noise(step).to(x)
        x = torch.where(_broad(step < path.lengths.to(x.device), x), moved, x)
        if on_step is not None:
            x = on_step(step, told, x)
    at = path.timesteps.to(x.device)
    alpha, sigma = schedule.coefficients(x, at)
    implied = (x - alpha * origin) / sigma
    return Inverted(x, at, implied, schedule.target(origin, implied, at))


@torch.no_grad()
def inversion_trajectory(
    role: Role, schedule: Schedule, clean: Tensor, conditioning: Conditioning, num_steps: int = 80
) -> InversionTrajectory:
    """Invert clean latents all the way up and keep every point, as Inversion-DPO's code does.

    The grid of a chain is 0, r, 2 r, ... with ``r = num_train_timesteps // num_steps``; of a flow it is a sampler's, up
    to 1. The network is told the level that a step reaches. One call a level.

    Args:
        role: the inverter, the reference in that code; wrap it for guidance.
        schedule: alphas and prediction type, of a chain or a flow; a chain's offset does not count.
        clean: (B, ...) latents.
        conditioning: B rows.
        num_steps: N.

    Raises:
        ConfigError: another kind of schedule, or too many steps.

    Source: Li et al., Inversion-DPO, arXiv:2507.11554 (MIGHTYEZ/Inversion-DPO ``train_ddim.py``).
    """
    x = clean.to(torch.promote_types(clean.dtype, torch.float32))
    if isinstance(schedule, DiscreteSchedule):
        schedule = replace(schedule, steps_offset=0)
        top = torch.full((len(x),), schedule.num_train_timesteps - 1)
    elif isinstance(schedule, FlowSchedule):
        top = torch.ones(len(x), dtype=torch.float64)
    else:
        raise ConfigError(f"no trajectory is known for a {type(schedule).__name__}; chains and flows have one")
    path = inversion_path(schedule, top, num_steps, "official", told="target")
    noisy, predictions = [], []
    for step in range(num_steps):
        sources, targets = (part[:, step].to(x.device) for part in (path.sources, path.targets))
        asked = Rows("denoising", {"noisy": x, "timesteps": targets}, conditioning, groups={})
        prediction = role(asked)["prediction"].to(x.dtype)
        noisy.append(x)
        predictions.append(prediction)
        x = inversion_step(schedule, inversion_direction(schedule, prediction, x, targets), x, sources, targets)
    return InversionTrajectory(torch.stack(noisy, 1), path.targets[0].to(x.device), torch.stack(predictions, 1))


def _broad(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))

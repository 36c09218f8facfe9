"""Which levels the inversion of clean data visits, where it lands, and its deterministic step; no network runs here.

Three landings are known for a drawn timestep t and a grid of levels:

- ``"official"``, that of InPO's code: the first level of the grid at or above t. The noisy data lie at that level while
  the network, and the noise that they imply, are told t; at small t the implied noise is several times too large.
- ``"exact"``: the levels below t, then t itself.
- ``"snap"``: as ``"official"``, and t becomes the level landed on, so that only the grid's levels are trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, suggest
from diffpref.schedules.base import Schedule
from diffpref.schedules.discrete import DiscreteSchedule
from diffpref.schedules.edm import EdmSchedule
from diffpref.schedules.flow import FlowSchedule
from diffpref.schedules.steps import ddim_step, ddim_timesteps

__all__ = [
    "LANDINGS",
    "InversionPath",
    "Landing",
    "Start",
    "Told",
    "inversion_direction",
    "inversion_path",
    "inversion_step",
    "started_at",
]

Landing = Literal["official", "exact", "snap"]
LANDINGS: tuple[str, ...] = get_args(Landing)
Told = Literal["source", "target"]
Start = Literal["scheduler", "first", "one"]


@dataclass(frozen=True)
class InversionPath:
    """The steps of B rows, on the CPU; a row that has landed stays where it is.

    Args:
        sources: (B, S) levels at which the steps begin; on a chain negative is the clean end, elsewhere 0 is.
        targets: (B, S) levels that they reach.
        told: (B, S) what the network is told.
        lengths: (B,) int64, how many steps a row takes, at least one.
        timesteps: (B,) of training: those drawn, or with ``"snap"`` the levels landed on.
    """

    sources: Tensor
    targets: Tensor
    told: Tensor
    lengths: Tensor
    timesteps: Tensor


def inversion_path(
    schedule: Schedule,
    timesteps: Tensor,
    num_steps: int,
    landing: Landing = "official",
    *,
    told: Told | None = None,
    spacing: str | None = "leading",
) -> InversionPath:
    """Return the steps from clean data to the levels at or near ``timesteps``.

    The grid is that of a sampler of ``num_steps`` steps, rising. On a chain a step of the official landing begins
    ``num_train_timesteps // num_steps`` below the level that it reaches; the first one begins below 0, at the clean
    end, and that negative number is what the network is told.

    Args:
        schedule: the levels.
        timesteps: (B,) drawn timesteps: of a chain int64, else levels > 0.
        num_steps: N, levels of the grid; a row takes at most N steps, with ``"exact"`` N + 1.
        landing: see this module.
        told: whether the network is told where a step begins or where it ends; None takes the beginning on a chain with
            the official way of landing, as that code does, and else the end, which a sampler would tell it there.
        spacing: of a chain's grid; None takes the checkpoint's.

    Raises:
        ConfigError: an unknown landing, too few or too many steps, timesteps off the path, or a network that would be
            told a level without noise while it predicts what cannot be converted there.

    Source: JaydenLyh/InPO ``train.py`` with the inverse scheduler of diffusers 0.20, the version that it asks for;
    later ones step between other levels.
    """
    if landing not in LANDINGS:
        raise ConfigError(
            f"landing: unknown '{landing}'{suggest(landing, LANDINGS) or ';'} known: {', '.join(LANDINGS)}"
        )
    grid, before = _grid(schedule, num_steps, spacing)
    chain = isinstance(schedule, DiscreteSchedule)
    drawn = timesteps.to("cpu", grid.dtype).unsqueeze(1)
    on_path = (drawn >= 0) & (drawn < schedule.num_train_timesteps) if chain else drawn > 0
    if not bool(on_path.all()):
        raise ConfigError(f"timesteps: must lie on the path, got {timesteps.min():g} to {timesteps.max():g}")
    if landing == "exact":
        lengths = (grid < drawn).sum(dim=1) + 1
        nodes = torch.cat([grid, grid[-1:]]).expand(len(drawn), -1)
        begins = torch.cat([grid.new_full((1,), -1 if chain else 0), grid]).expand(len(drawn), -1)
        landed = drawn
    else:
        lengths = (before < drawn).sum(dim=1).clamp(min=1)  # 0 at timestep 0 where a large offset raises the grid
        nodes, begins = grid.expand(len(drawn), -1), before.expand(len(drawn), -1)
        landed = grid[lengths - 1].unsqueeze(1)
    step = torch.arange(nodes.shape[1])
    sources = torch.where(step < lengths.unsqueeze(1), begins, landed)
    targets = torch.where(step < lengths.unsqueeze(1) - 1, nodes, landed)
    told = told or ("source" if chain and landing != "exact" else "target")
    shown = sources if told == "source" else targets
    _check_told(schedule, shown)
    return InversionPath(sources, targets, shown, lengths, (landed if landing == "snap" else drawn).squeeze(1))


def started_at(schedule: Schedule, start: Start) -> Schedule:
    """Return the schedule with the level of clean data that an inversion starts at.

    Args:
        schedule: of any kind.
        start: ``"first"``: clean data count as noisy as timestep 0 of a chain, as in checkpoints of Stable Diffusion;
            ``"one"``: as free of noise; ``"scheduler"``: what the checkpoint's scheduler says.

    Raises:
        ConfigError: ``"first"`` where there is no first timestep.
    """
    if isinstance(schedule, DiscreteSchedule):
        return schedule if start == "scheduler" else replace(schedule, set_alpha_to_one=start == "one")
    if start == "first":
        raise ConfigError("start: 'first' is for chains of timesteps; levels of noise begin at 0, which is 'one'")
    return schedule


def inversion_direction(schedule: Schedule, prediction: Tensor, noisy: Tensor, told: Tensor) -> Tensor:
    """Return what `inversion_step` goes along: of a flow the velocity itself, else the noise that is implied.

    The conversion is at the level that the network was told, not at that of the data, so that networks which are one
    function in two parameterisations are inverted alike.

    Args:
        schedule: what the prediction is.
        prediction: (B, ...) of the network.
        noisy: (B, ...) what it was shown.
        told: (B,) timesteps that it was told.
    """
    return prediction if isinstance(schedule, FlowSchedule) else schedule.to_noise(prediction, noisy, told)


def inversion_step(schedule: Schedule, direction: Tensor, noisy: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Take a deterministic DDIM step from one level to a noisier one; of a flow Euler's step.

    Args:
        schedule: alphas and sigmas.
        direction: (B, ...) of `inversion_direction`.
        noisy: (B, ...) data at ``sources``.
        sources: (B,) levels.
        targets: (B,) levels.

    Returns:
        (B, ...) data at ``targets``, in the dtype of ``noisy``.
    """
    if isinstance(schedule, FlowSchedule):
        return ddim_step(schedule, direction, noisy, sources, targets)
    alpha, sigma = schedule.coefficients(noisy, sources)
    clean = (noisy - sigma * direction) / alpha
    return schedule.add_noise(clean, direction.to(clean.dtype), targets).to(noisy.dtype)


def _grid(schedule: Schedule, num_steps: int, spacing: str | None) -> tuple[Tensor, Tensor]:
    """Return the rising levels, and where the official steps to them begin, (N,) each."""
    if isinstance(schedule, DiscreteSchedule):
        grid = ddim_timesteps(schedule, num_steps, spacing).flip(0)
        return grid, grid - schedule.num_train_timesteps // num_steps
    if isinstance(schedule, FlowSchedule | EdmSchedule):
        grid = schedule.grid(num_steps).flip(0)
        return grid, torch.cat([grid.new_zeros(1), grid[:-1]])
    raise ConfigError(f"no inversion is known for a {type(schedule).__name__}")


def _check_told(schedule: Schedule, told: Tensor) -> None:
    if isinstance(schedule, FlowSchedule) or bool((schedule.sigma(told) > 0).all()):
        return
    if isinstance(schedule, EdmSchedule):
        raise ConfigError("told: a network of EDM's levels cannot be told that there is no noise; use told='target'")
    if schedule.prediction_type == "sample":
        raise ConfigError(
            "told: a predicted sample implies no noise at the clean end; use told='target' or start='first'"
        )

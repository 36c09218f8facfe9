"""One strength of regularisation in four units of beta: what a published number means in ours, and the other way."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from diffpref.core.errors import ConfigError, suggest
from diffpref.likelihood.weighting import NoiseSchedule

__all__ = ["BETA_UNITS", "BetaUnit", "convert_beta", "mean_elbo_weight"]

BetaUnit = Literal["official", "diffusers", "sum", "nats"]
BETA_UNITS: tuple[str, ...] = get_args(BetaUnit)


def convert_beta(
    beta: float,
    *,
    source: BetaUnit,
    target: BetaUnit,
    num_elements: int | None = None,
    schedule: NoiseSchedule | None = None,
) -> float:
    r"""Express a beta of one convention in another; the margin stays the same.

    With :math:`e` the squared error of policy minus that of the reference, and D elements in a latent:

    - ``"official"``: margin :math:`-\tfrac{1}{2}\beta\,\Delta\,\text{mean}(e)`; the DiffusionDPO code, flow_grpo, our
      default (``weighting: simple``). 5000 in its launchers.
    - ``"diffusers"``: :math:`-\beta\,\Delta\,\text{mean}(e)`; the diffusers script for Stable Diffusion: 2500. (Its
      SDXL script has the half: ``"official"``.)
    - ``"sum"``: :math:`-\tfrac{1}{2}\beta\,\Delta\,\text{sum}(e)`; a squared norm, as papers write it.
    - ``"nats"``: beta times the difference of true log-ratios, as in text DPO (``weighting: elbo``). The other units
      replace the ELBO's weight k(t) by a constant; this takes its mean, so the equality holds on average over t:
      :math:`\beta_\text{nats} = \beta_\text{official} / (2\,T\,\bar k\,D)`.

    Args:
        beta: in units of ``source``, > 0.
        source: convention of ``beta``.
        target: convention of the result.
        num_elements: D, needed for ``"sum"`` and ``"nats"``: 16384 for SD 1.5 at 512 pixels, 65536 for SDXL at 1024.
        schedule: of the checkpoint, needed for ``"nats"``.

    Returns:
        beta in units of ``target``.

    Raises:
        ConfigError: an unknown convention, a beta that is not positive, or what a convention needs is missing.

    Source: Wallace et al., arXiv:2311.12908, eq. 14; the official code and the diffusers script; Kingma et al.,
    arXiv:2107.00630, eq. 13 for k(t).

    >>> convert_beta(5000, source="official", target="diffusers")
    2500.0
    >>> round(convert_beta(5000, source="official", target="sum", num_elements=16384), 6)
    0.305176
    """
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(f"beta: must be > 0 and finite, got {beta}")
    for unit in (source, target):
        if unit not in BETA_UNITS:
            raise ConfigError(
                f"unknown unit of beta '{unit}'{suggest(unit, BETA_UNITS) or ';'} known: {', '.join(BETA_UNITS)}"
            )
    if source == target:
        return float(beta)
    factors = [_per_official(unit, num_elements, schedule) for unit in (source, target)]
    return beta * factors[1] / factors[0]


def mean_elbo_weight(schedule: NoiseSchedule, first: int = 1) -> float:
    """Return the mean of k(t) over the timesteps from ``first`` to the last.

    Args:
        schedule: a chain of timesteps; for continuous time the mean is infinite.
        first: at least 1, because the weight of timestep 0 is infinite. Few timesteps decide the mean: on the schedule
            of Stable Diffusion it is 0.0065 from 1 on and 0.0048 from 20 on.

    Raises:
        ConfigError: the mean is not finite.
    """
    length = schedule.num_train_timesteps
    if not 1 <= first < length:
        raise ConfigError(f"the ELBO's mean weight needs a chain of more than {max(first, 1)} timesteps, got {length}")
    mean = schedule.elbo_weight(torch.arange(first, length)).mean().item()
    if not math.isfinite(mean):
        raise ConfigError("the ELBO's mean weight is infinite on this schedule (zero terminal SNR with epsilon?)")
    return mean


def _per_official(unit: BetaUnit, num_elements: int | None, schedule: NoiseSchedule | None) -> float:
    """How much of a unit is one official unit."""
    if unit == "official":
        return 1.0
    if unit == "diffusers":
        return 0.5
    if num_elements is None or num_elements < 1:
        raise ConfigError(f"beta in '{unit}' needs num_elements, the elements of a latent, got {num_elements}")
    if unit == "sum":
        return 1 / num_elements
    if schedule is None:
        raise ConfigError("beta in 'nats' needs the checkpoint's schedule")
    return 1 / (2 * schedule.num_train_timesteps * mean_elbo_weight(schedule) * num_elements)

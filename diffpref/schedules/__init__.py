"""Noise schedules and pure sampler steps: no network, no model library."""

from __future__ import annotations

from diffpref.schedules.base import PREDICTION_TYPES, PredictionType, Schedule
from diffpref.schedules.density import Density, DensityKind
from diffpref.schedules.discrete import DiscreteSchedule
from diffpref.schedules.edm import EdmSchedule
from diffpref.schedules.flow import DynamicShift, FlowSchedule
from diffpref.schedules.inversion import (
    LANDINGS,
    InversionPath,
    Landing,
    Start,
    Told,
    inversion_direction,
    inversion_path,
    inversion_step,
    started_at,
)
from diffpref.schedules.steps import (
    SPACINGS,
    ddim_landings,
    ddim_path,
    ddim_step,
    ddim_timesteps,
    dpmpp_2m_step,
    dpmpp_2m_timesteps,
)
from diffpref.schedules.stochastic import (
    FlowStep,
    cps_logps,
    dance_sde_step,
    ddim_distribution,
    ddim_std,
    flow_cps_step,
    flow_sde_step,
    gaussian_kl,
    gaussian_logps,
)

__all__ = [
    "LANDINGS",
    "PREDICTION_TYPES",
    "SPACINGS",
    "Density",
    "DensityKind",
    "DiscreteSchedule",
    "DynamicShift",
    "EdmSchedule",
    "FlowSchedule",
    "FlowStep",
    "InversionPath",
    "Landing",
    "PredictionType",
    "Schedule",
    "Start",
    "Told",
    "cps_logps",
    "dance_sde_step",
    "ddim_distribution",
    "ddim_landings",
    "ddim_path",
    "ddim_std",
    "ddim_step",
    "ddim_timesteps",
    "dpmpp_2m_step",
    "dpmpp_2m_timesteps",
    "flow_cps_step",
    "flow_sde_step",
    "gaussian_kl",
    "gaussian_logps",
    "inversion_direction",
    "inversion_path",
    "inversion_step",
    "started_at",
]

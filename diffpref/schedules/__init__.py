"""Noise schedules and pure sampler steps: no network, no model library."""

from __future__ import annotations

from diffpref.schedules.base import PREDICTION_TYPES, PredictionType, Schedule
from diffpref.schedules.discrete import DiscreteSchedule
from diffpref.schedules.flow import FlowSchedule
from diffpref.schedules.steps import (
    SPACINGS,
    ddim_landings,
    ddim_step,
    ddim_timesteps,
    dpmpp_2m_step,
    dpmpp_2m_timesteps,
)

__all__ = [
    "PREDICTION_TYPES",
    "SPACINGS",
    "DiscreteSchedule",
    "FlowSchedule",
    "PredictionType",
    "Schedule",
    "ddim_landings",
    "ddim_step",
    "ddim_timesteps",
    "dpmpp_2m_step",
    "dpmpp_2m_timesteps",
]

"""The straight path of flow matching and rectified flow: ``x_t = (1 - t) * clean + t * noise``, t in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.schedules.base import PredictionType, Schedule

__all__ = ["FlowSchedule"]


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Continuous time, 1 = noise; the network predicts the velocity ``noise - clean``.

    What number the network is fed as time (0...1000 for SD3) is its family's matter; here t is the noise level itself.
    """

    prediction_type: PredictionType = "flow"
    num_train_timesteps: int = 1

    def __post_init__(self) -> None:
        if self.prediction_type != "flow" or self.num_train_timesteps != 1:
            raise ConfigError("a flow schedule predicts 'flow' on continuous time, num_train_timesteps 1")

    def alpha(self, timesteps: Tensor) -> Tensor:
        """Return ``1 - t``, float64."""
        return 1 - timesteps.to(torch.float64)

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Return ``t``, float64."""
        return timesteps.to(torch.float64)

    def elbo_weight(self, timesteps: Tensor) -> Tensor:
        """Return ``(1 - t) / t``, float64; infinite at t = 0."""
        time = timesteps.to(torch.float64)
        return (1 - time) / time

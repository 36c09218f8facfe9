"""Where on the path training draws its timesteps: uniform numbers, one a record, bent to a density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError

__all__ = ["Density", "DensityKind"]

DensityKind = Literal["uniform", "logit_normal", "mode"]
EDGE = 1e-6  # the normal's quantile is infinite at 0 and 1
MOST = 2 / (math.pi - 2)  # 1.7519


@dataclass(frozen=True)
class Density:
    """A density on (0, 1), by its inverse distribution function: a keyed uniform number gives a keyed draw.

    A draw near 0 means much noise, as in the codes of SD3, which index a falling list of timesteps: a positive
    ``logit_mean`` draws less noise.

    Args:
        kind: ``"uniform"``; ``"logit_normal"``: sigmoid(mean + std * normal); ``"mode"``: the heavy-tailed density that
            ``mode_scale`` bends.
        logit_mean: of the normal.
        logit_std: of the normal, > 0.
        mode_scale: s of ``1 - u - s * (cos^2(pi u / 2) - 1 + u)``, in [-1, 2 / (pi - 2)]: there the draw moves one way
            with u.

    Raises:
        ConfigError: a std that is not positive, or a scale at which the draw would not rise with u.

    Source: Esser et al., Scaling Rectified Flow Transformers, arXiv:2403.03206, section 3.1.
    """

    kind: DensityKind = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29

    def __post_init__(self) -> None:
        if not self.logit_std > 0:
            raise ConfigError(f"logit_std: must be > 0, got {self.logit_std}")
        if not -1 <= self.mode_scale <= MOST:
            raise ConfigError(f"mode_scale: must be in [-1, {MOST:.4f}], got {self.mode_scale}")

    def __call__(self, uniform: Tensor) -> Tensor:
        """Return draws in [0, 1], float64, shaped like ``uniform`` in [0, 1)."""
        u = uniform.to(torch.float64)
        if self.kind == "uniform":
            return u
        if self.kind == "logit_normal":
            normal = torch.special.ndtri(u.clamp(EDGE, 1 - EDGE))
            return torch.sigmoid(self.logit_mean + self.logit_std * normal)
        return 1 - u - self.mode_scale * (torch.cos(math.pi * u / 2).square() - 1 + u)

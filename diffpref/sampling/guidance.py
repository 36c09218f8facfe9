"""Classifier-free guidance as a view of a role."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Role, Rows
from diffpref.core.errors import ConfigError

__all__ = ["GuidedRole"]


@dataclass(frozen=True)
class GuidedRole:
    """A denoiser that predicts ``without + guidance * (told - without)``, asked with twice the rows.

    Args:
        role: a denoiser.
        negative: what it is told in place of the prompt: one row, or one for each row asked.
        guidance: 1 is the role itself.
    """

    role: Role
    negative: Conditioning
    guidance: float

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        """Ask both, and extrapolate from the one to the other.

        Raises:
            ConfigError: ``negative`` has neither one row nor as many as are asked.
        """
        count = len(rows.conditioning)
        if len(self.negative) not in (1, count):
            raise ConfigError(f"negative: must have 1 row or {count}, got {len(self.negative)}")
        negative = self.negative.take([0] * count) if len(self.negative) == 1 else self.negative
        twice = replace(
            rows,
            inputs={name: torch.cat([tensor, tensor]) for name, tensor in rows.inputs.items()},
            conditioning=Conditioning.concatenate([negative, rows.conditioning]),
            negative=None,
            guidance=1.0,
        )
        without, told = self.role(twice, grad)["prediction"].chunk(2)
        return {"prediction": without + self.guidance * (told - without)}

"""The straight path of flow matching and rectified flow: ``x_t = (1 - t) * clean + t * noise``, t in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.schedules.base import PredictionType, Schedule

__all__ = ["DynamicShift", "FlowSchedule"]

UNSUPPORTED = (
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class DynamicShift:
    """A shift that grows with the number of tokens of the picture.

    Args:
        base_shift: mu at ``base_image_seq_len`` tokens.
        max_shift: mu at ``max_image_seq_len`` tokens; straight in between and beyond.
        base_image_seq_len: tokens.
        max_image_seq_len: tokens.
        kind: whether the shift is exp(mu) or mu.
    """

    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    kind: Literal["exponential", "linear"] = "exponential"

    def __call__(self, num_tokens: int) -> float:
        """Return the shift of a picture of so many tokens."""
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        mu = self.base_shift + slope * (num_tokens - self.base_image_seq_len)
        return math.exp(mu) if self.kind == "exponential" else mu


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Continuous time, 1 = noise; the network predicts the velocity ``noise - clean``.

    What number the network is fed as time (0...1000 for SD3) is its family's matter; here t is the noise level itself.

    Args:
        prediction_type: ``"flow"``.
        num_train_timesteps: 1: the length of the path in units of t.
        shift: how far levels are pushed towards noise, 1 = not at all; see `shifted`.
        dynamic: the rule of a checkpoint whose shift depends on the picture's size; `at` applies it.
        table_length: of the checkpoint's scheduler, whose last entry is where sampling grids begin to end.
    """

    prediction_type: PredictionType = "flow"
    num_train_timesteps: int = 1
    shift: float = 1.0
    dynamic: DynamicShift | None = None
    table_length: int = 1000

    def __post_init__(self) -> None:
        if self.prediction_type != "flow" or self.num_train_timesteps != 1:
            raise ConfigError("a flow schedule predicts 'flow' on continuous time, num_train_timesteps 1")
        if not self.shift > 0:
            raise ConfigError(f"scheduler.shift: must be > 0, got {self.shift}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FlowSchedule:
        """Read a diffusers flow-matching scheduler's config; absent keys have its defaults.

        Raises:
            ConfigError: another kind of scheduler, or a setting that changes the path in a way that is not known here.
        """
        name = str(config.get("_class_name", "FlowMatchEulerDiscreteScheduler"))
        if not name.startswith("FlowMatch"):
            raise ConfigError(f"scheduler: {name} is no flow-matching scheduler; use DiscreteSchedule")
        if odd := [key for key in UNSUPPORTED if config.get(key)]:
            raise ConfigError(f"scheduler.{odd[0]}: {config[odd[0]]!r} is not supported; leave it out")
        length = int(config.get("num_train_timesteps", 1000))
        if not config.get("use_dynamic_shifting"):
            return cls(shift=float(config.get("shift", 1.0)), table_length=length)
        rule = DynamicShift(
            float(config.get("base_shift", 0.5)),
            float(config.get("max_shift", 1.15)),
            int(config.get("base_image_seq_len", 256)),
            int(config.get("max_image_seq_len", 4096)),
            config.get("time_shift_type", "exponential"),
        )
        return cls(dynamic=rule, table_length=length)

    def at(self, num_tokens: int) -> FlowSchedule:
        """Return the path of a picture of so many tokens: this one, with the shift that a dynamic rule gives."""
        return self if self.dynamic is None else replace(self, shift=self.dynamic(num_tokens))

    def shifted(self, levels: Tensor) -> Tensor:
        """Return ``s t / (1 + (s - 1) t)``, float64: levels in [0, 1] pushed towards noise by the shift s."""
        wide = levels.to(torch.float64)
        return self.shift * wide / (1 + (self.shift - 1) * wide)

    def grid(self, num_steps: int) -> Tensor:
        """Return a sampler's noise levels, (num_steps,) float64, falling from 1; the step after the last lands on 0.

        As diffusers' ``FlowMatchEulerDiscreteScheduler``: evenly from 1 to the table's last entry, then shifted. With
        a static shift that entry has been shifted once already.

        Raises:
            ConfigError: no step.
        """
        if num_steps < 1:
            raise ConfigError(f"num_steps: must be at least 1, got {num_steps}")
        last = torch.tensor(1 / self.table_length, dtype=torch.float64)
        if self.dynamic is None:
            last = self.shifted(last)
        return self.shifted(torch.linspace(1.0, float(last), num_steps, dtype=torch.float64))

    def draw(self, place: Tensor) -> Tensor:
        """Return shifted noise levels, float64 in (0, 1]; place 0 is pure noise, as in SD3's falling list."""
        return self.shifted(1 - place.to(torch.float64))

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

"""Diffusion-DPO (Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization, arXiv:2311.12908).

As in the official code: both images of a pair are noised with the same noise at the same timestep, the caption is
dropped for both at once, and the loss compares how much the denoising errors changed. ``dpo`` with beta on these
log-ratios is the official loss with the same beta: its factor 1/2, the mean over latent elements and the constant
weighting live in the likelihood. Published beta: 2000 (paper, SD 1.5), 5000 (both official launchers, SDXL).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from diffpref.config import Section
from diffpref.core.annotations import NonNegative, Probability
from diffpref.core.contracts import Batch, Context, RoleSpec, Rows
from diffpref.core.errors import ConfigError
from diffpref.methods import registry
from diffpref.methods._forward import Dropped, drop_prompts, forward_rows
from diffpref.schedules import DiscreteSchedule, Schedule

__all__ = ["DiffusionDPO"]


@registry.register("diffusion_dpo", aliases=("diffusion-dpo",))
class DiffusionDPO(Section):
    """Options of the method; the defaults are the official code's."""

    source: ClassVar[str] = (
        "Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization, CVPR 2024, arXiv:2311.12908"
    )
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "denoising"

    share_noise: bool = Field(
        default=True, description="one noise for both images, as in the official code; the paper draws two"
    )
    empty_prompt_prob: Probability = Field(
        default=0.2, description="share of pairs whose caption is replaced by the empty one, for both images"
    )
    dropped_as: Dropped = Field(
        default="encode",
        description="what a dropped caption becomes: the encoded empty one, as in the official code, or zeros, which"
        " SDXL's pipeline guides away from",
    )
    timestep_rule: Literal["uniform", "turbo", "refiner"] = Field(
        default="uniform",
        description="turbo: only 249, 499, 749, 999 under zero terminal SNR; refiner: only the first 200",
    )
    noise_offset: NonNegative = Field(default=0.0, description="constant noise a channel, part of the target")
    input_perturbation: NonNegative = Field(default=0.0, description="extra noise in the input only, shared in a pair")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen", "rejected"})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec()}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("dpo", {"beta": 5000.0})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise both images of each pair (official code, steps 4 to 7)."""
        chosen, rejected = batch.media["chosen"], batch.media["rejected"]
        schedule = self._schedule(context)
        if self.timestep_rule != "uniform" and not isinstance(schedule, DiscreteSchedule):
            raise ConfigError(
                f"method.timestep_rule: '{self.timestep_rule}' is for chains; a flow takes likelihood.timesteps"
            )
        timesteps = self._timesteps(batch, context, schedule.num_train_timesteps)
        if self.timestep_rule == "turbo":
            assert isinstance(schedule, DiscreteSchedule)
            schedule = schedule.rescaled()
        noise, given = self._noise("noise", batch, context, chosen)
        groups = {"chosen": (chosen, noise, given)}
        if not self.share_noise:
            noise, given = self._noise("noise of the rejected", batch, context, rejected)
        groups["rejected"] = (rejected, noise, given)
        conditioning = drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as)
        return forward_rows(schedule, groups, timesteps, conditioning, batch.columns)

    def _schedule(self, context: Context) -> Schedule:
        """Return what noises, and decides what the network is to predict."""
        schedule: Schedule = context.family.schedule
        return schedule

    def _timesteps(self, batch: Batch, context: Context, length: int) -> Tensor | Mapping[str, Tensor]:
        """Return (B,) timesteps of the pairs, or group -> (B,), where a chain has ``length`` of them."""
        return self._draw_timesteps("timestep", batch, context, length)

    def _draw_timesteps(self, stream: str, batch: Batch, context: Context, length: int) -> Tensor:
        """Draw (B,) timesteps and apply the rule; a chain is 1000 long in every published checkpoint."""
        uniform = context.family.sample_timesteps(context.random.uniform(stream, batch.keys))
        uniform = uniform.to(batch.media["chosen"].device)
        if self.timestep_rule == "turbo":
            quarter = length // 4
            return quarter * (uniform % 4) + quarter - 1
        return uniform % (length // 5) if self.timestep_rule == "refiner" else uniform

    def _noise(self, stream: str, batch: Batch, context: Context, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of the target and the noise of the input, (B, C, ...) each."""
        noise = context.random.normal(stream, batch.keys, like.shape[1:])
        if self.noise_offset:
            offset = context.random.normal(f"{stream}, offset", batch.keys, (like.shape[1], *[1] * (like.dim() - 2)))
            noise = noise + self.noise_offset * offset
        given = noise
        if self.input_perturbation:
            extra = context.random.normal("input perturbation", batch.keys, like.shape[1:])
            given = noise + self.input_perturbation * extra
        return noise.to(like), given.to(like)

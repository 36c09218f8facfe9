"""What methods share that invert their samples: DDIM-InPO and SmPO differ in defaults and in what weighs a pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from diffpref.config import Recipe, Section
from diffpref.core.annotations import NonNegative, NonNegativeInt, Number, PositiveInt, Probability
from diffpref.core.contracts import Batch, Conditioning, Context, RoleSpec, Rows
from diffpref.core.errors import ConfigError
from diffpref.methods._forward import Dropped, drop_prompts, forward_rows
from diffpref.sampling import InversionSettings, inversion_noise, invert
from diffpref.schedules import DiscreteSchedule, Landing, Schedule, Start, Told

__all__ = ["SIDES", "Inverting"]

SIDES = ("chosen", "rejected")
ETA = 0.1
"""Noise of a step in InPO's code, where it is said to be optional."""


class Inverting(Section):
    """Options of an inversion up to a timestep that is drawn as Diffusion-DPO's is, one for both samples of a pair."""

    likelihood: ClassVar[str] = "denoising"

    num_steps: PositiveInt = Field(default=10, description="levels of the inversion's grid, those of a sampler")
    landing: Landing = Field(
        default="official",
        description="where the inversion ends for a timestep t: official: at the first level of the grid at or above t,"
        " though the network is told t; exact: at t itself; snap: as official, and t becomes that level",
    )
    inverter: Literal["policy", "reference"] = Field(
        default="policy",
        description="the role that inverts; policy, as it is at that update, in the official code. What the reference"
        " inverts stays the same, so that a bank may hold what it answers",
    )
    eta: NonNegative | None = Field(
        default=None,
        description="random noise of each step; not given: 0.1 on chains of timesteps, as in InPO's code, and none on"
        " flows, which know none",
    )
    renoise_steps: NonNegativeInt = Field(
        default=0, description="ReNoise: corrections of each step, one more call each; 0 is DDIM inversion"
    )
    renoise_weights: tuple[Number, ...] | None = Field(
        default=None,
        description="of a step's 1 + renoise_steps predictions, summing to 1; not given: equal. All on the last is a"
        " fixed-point iteration",
    )
    start: Start = Field(
        default="scheduler",
        description="level of noise of clean latents: first: that of timestep 0; one: none; scheduler: what the"
        " checkpoint's scheduler says",
    )
    told: Told | None = Field(
        default=None,
        description="level that the inverter is told, where a step begins (source) or ends (target); not given: source"
        " on chains except for the exact landing, as in the official code",
    )
    noise: Literal["inverted", "forward"] = Field(
        default="inverted",
        description="forward: no inversion but the noise of diffusion_dpo, to compare with that and nothing else",
    )
    empty_prompt_prob: Probability = Field(
        default=0.2,
        description="share of pairs whose caption is replaced by the empty one, in the inversion as in the loss",
    )
    dropped_as: Dropped = Field(
        default="encode",
        description="what a dropped caption becomes: the encoded empty one, as in the official code, or zeros, which"
        " SDXL's pipeline guides away from",
    )

    @model_validator(mode="after")
    def _check_settings(self) -> Inverting:
        self._settings(0.0)
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(SIDES)

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        asked = self.noise == "inverted" and self.inverter == "reference"
        return {"reference": RoleSpec(in_prepare=asked)}

    def misfits(self, recipe: Recipe) -> Iterator[str]:
        """Yield a line where a bank would be asked about other rows each time."""
        if recipe.bank.slots and self.noise == "inverted" and self.inverter == "policy":
            yield (
                f"bank.slots: must be 0, got {recipe.bank.slots}: the policy inverts, so the reference is asked about"
                f" other rows each time; or let the reference invert (method.{recipe.method.name}.inverter: reference)"
            )

    def inversion_settings(self, schedule: Schedule) -> InversionSettings:
        """Return how latents are inverted on a schedule."""
        chain = isinstance(schedule, DiscreteSchedule)
        return self._settings(self.eta if self.eta is not None else ETA if chain else 0.0)

    def _settings(self, eta: float) -> InversionSettings:
        return InversionSettings(
            num_steps=self.num_steps,
            landing=self.landing,
            eta=eta,
            renoise_steps=self.renoise_steps,
            renoise_weights=self.renoise_weights,
            start=self.start,
            told=self.told,
        )

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Invert both samples of each pair, up to one timestep and under one caption; nothing of it has a gradient."""
        chosen, schedule = batch.media["chosen"], context.family.schedule
        timesteps = context.family.sample_timesteps(context.random.uniform("timestep", batch.keys)).to(chosen.device)
        conditioning = drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as)
        if self.noise == "forward":
            noise = context.random.normal("noise", batch.keys, chosen.shape[1:]).to(chosen)
            groups = {side: (batch.media[side], noise, noise) for side in SIDES}
            return forward_rows(schedule, groups, timesteps, conditioning, batch.columns)
        settings = self.inversion_settings(schedule)
        if settings.landing == "exact" and isinstance(schedule, DiscreteSchedule) and settings.start != "one":
            timesteps = timesteps.clamp(min=1)  # clean latents lie at timestep 0: landing there is no step at all
        clean = torch.cat([batch.media[side] for side in SIDES])
        told = Conditioning.concatenate([conditioning] * len(SIDES))
        keys = [(*key, side) for side in SIDES for key in batch.keys]
        try:
            found = invert(
                context.network(self.inverter),
                schedule,
                clean,
                timesteps.repeat(len(SIDES)),
                told,
                settings,
                noise=inversion_noise(context.random, keys, clean.shape[1:]),
                most=context.world.largest,
            )
        except ConfigError as error:
            raise ConfigError(f"method.{error}") from error
        return pair_rows(
            {"noisy": found.noisy, "timesteps": found.timesteps, "target": found.target},
            told,
            {"timesteps": found.timesteps[: len(batch)], **batch.columns},
            schedule,
            self.inverter,
        )


def pair_rows(
    inputs: Mapping[str, Tensor], told: Conditioning, columns: Mapping[str, Tensor], schedule: Schedule, made_by: str
) -> Rows:
    """Return the rows of B pairs, chosen before rejected, that a role has made."""
    first, second = torch.arange(len(told), device=inputs["noisy"].device).chunk(2)
    rows = Rows("denoising", inputs, told, {"chosen": first, "rejected": second}, columns, schedule=schedule)
    return replace(rows, depends_on=frozenset({made_by}))

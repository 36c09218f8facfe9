"""Inversion-DPO (Li et al., arXiv:2507.11554): policy and reference compared along a whole inverted trajectory.

Experimental. The reference inverts each sample through all levels; at every point the policy is asked, with gradient,
and what counts is how far its answer is from the reference's: ``d_i = mean((eps_policy - eps_reference)^2) /
(2 alpha_i^2)``, whatever the prediction type. The objective `inversion_dpo` rewards the larger disagreement on the
chosen sample, as the code does. That sign belongs to trajectories of the policy (``inverter: policy``); for those of
the reference, the code's, it would be minus (the objective's ``sign``).

Where the two agree the disagreement has its minimum, so a copy of the reference learns nothing: the policy must start
from something else, such as the LoRA of a short Diffusion-DPO (``adapter.start``) beside the network without it
(``roles.reference.source: initial``, the default here). The heaviest method of all: ``2 num_steps`` rows a pair with
gradient, and twice that under guidance; all activations are held at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffpref.config import Section
from diffpref.core.annotations import NonNegative, PositiveInt, Probability
from diffpref.core.contracts import Batch, Conditioning, Context, Role, RoleSpec, Rows
from diffpref.core.errors import ConfigError
from diffpref.methods import registry
from diffpref.methods._forward import Dropped, drop_prompts
from diffpref.methods._inverting import SIDES, pair_rows
from diffpref.sampling import GuidedRole, inversion_trajectory
from diffpref.schedules import Schedule

__all__ = ["InversionDPO", "point_weight"]


def point_weight(schedule: Schedule, timesteps: Tensor) -> Tensor:
    """Return by what the squared difference of two native predictions is multiplied, float64, shaped like timesteps.

    It is the squared difference of the noise that they imply for one latent, over alpha squared: 1 / alpha^2 for
    predicted noise, as in the code; 1 for v-prediction and for flows.
    """
    alpha, sigma = schedule.alpha(timesteps), schedule.sigma(timesteps)
    if schedule.prediction_type == "epsilon":
        return alpha.pow(-2)
    if schedule.prediction_type == "sample":
        return sigma.pow(-2)
    if schedule.prediction_type == "flow":
        return (alpha + sigma).pow(-2)
    return (alpha.square() + sigma.square()).pow(-2)


@registry.register("inversion_dpo", aliases=("inversion-dpo",))
class InversionDPO(Section):
    """Options of the method; the defaults are the official launcher's."""

    source: ClassVar[str] = (
        "Li et al., Inversion-DPO: Precise and Efficient Post-Training for Diffusion Models, ACM MM 2025,"
        " arXiv:2507.11554"
    )
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "denoising"
    gives: ClassVar[frozenset[str]] = frozenset({"segment_kl"})

    num_steps: PositiveInt = Field(default=80, description="points of the trajectory; the official parser's own is 40")
    guidance: NonNegative = Field(
        default=2.0, description="classifier-free guidance of both networks, twice the rows; 1 = none"
    )
    unconditional: Dropped = Field(
        default="zeros", description="what guidance steers away from: zeros, or the encoded empty caption"
    )
    inverter: Literal["reference", "policy"] = Field(
        default="reference", description="the role that inverts; with policy the reference is asked beside it"
    )
    empty_prompt_prob: Probability = Field(default=0.0, description="share of pairs shown with the empty caption")

    @property
    def draws(self) -> int:
        """The points of a sample, one after another."""
        return self.num_steps

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(SIDES)

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec("initial", in_prepare=True)}  # also to see that the policy differs

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("inversion_dpo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Invert both samples of each pair, and put all points of their trajectories into one batch.

        Raises:
            ConfigError: before the first update, when the policy is what it is compared with.
        """
        schedule = context.family.schedule
        shared = drop_prompts(batch, context, self.empty_prompt_prob)
        clean = torch.cat([batch.media[side] for side in SIDES])
        told = Conditioning.concatenate([shared] * len(SIDES))
        negative = self._negative(told, batch, context) if self.guidance != 1 else None

        def asked(name: str) -> Role:
            role = context.network(name)
            return role if negative is None else GuidedRole(role, negative, self.guidance)

        path = inversion_trajectory(asked(self.inverter), schedule, clean, told, self.num_steps)
        if context.step == 0:
            first = Rows(
                "denoising", {"noisy": path.noisy[:, 0], "timesteps": path.timesteps[:1].expand(len(clean))}, told, {}
            )
            other = asked("policy" if self.inverter == "reference" else "reference")
            self._check_apart(path.predictions[:, 0], other, first)

        noisy, times = path.noisy.transpose(0, 1).flatten(0, 1), path.timesteps.repeat_interleave(len(clean))
        alpha, sigma = schedule.coefficients(noisy, times)
        origin = clean.to(noisy).repeat(self.num_steps, *[1] * (clean.dim() - 1))
        inputs = {
            "noisy": noisy,
            "timesteps": times,
            "target": schedule.target(origin, (noisy - alpha * origin) / sigma, times),  # only to watch the errors by
            "point_weight": point_weight(schedule, times),
        }
        rows = pair_rows(inputs, told, batch.columns, schedule, self.inverter)
        each = torch.arange(len(told), device=noisy.device).repeat(self.num_steps)
        answers = {"prediction": path.predictions.transpose(0, 1).flatten(0, 1)}
        return replace(
            rows,
            conditioning=told.take(each),
            draws=self.num_steps,
            guidance=self.guidance,
            negative=None if negative is None else negative.take(each),
            answers={"reference": answers} if self.inverter == "reference" else {},
        )

    def _negative(self, told: Conditioning, batch: Batch, context: Context) -> Conditioning:
        """Return 2B rows without a prompt; sizes stay told."""
        everywhere = torch.ones(len(told), dtype=torch.bool, device=next(iter(told.tensors.values())).device)
        other = batch.empty if self.unconditional == "encode" else batch.empty.zeros()
        return told.where(everywhere, other, keep=context.family.size_tensors)

    def _check_apart(self, said: Tensor, other: Role, first: Rows) -> None:
        with torch.no_grad():
            same = torch.equal(other(first)["prediction"].to(said.dtype), said)
        if same:
            raise ConfigError(
                "method: inversion_dpo learns nothing where the policy begins as the reference; start from a LoRA of an"
                " earlier run (adapter.start: RUN/lora, which keeps roles.reference.source: initial), or let"
                " roles.reference.path name another model"
            )

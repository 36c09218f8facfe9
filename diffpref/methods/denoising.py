"""The plain forward process under any objective: whatever samples it names, noised alike.

Pairs, single labelled samples and lists are noised at one timestep with one noise a record, as in Diffusion-DPO's code,
so that what differs between two likelihoods is the samples. Several draws a record lower the variance of a
log-likelihood; to objectives of units (TDPO and its relatives) they are the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import PositiveInt, Probability
from diffpref.core.contracts import Batch, Context, RoleSpec, Rows
from diffpref.core.vocabulary import GROUPS
from diffpref.methods import registry
from diffpref.methods._forward import Dropped, drop_prompts, forward_rows, join_draws, noise_like

__all__ = ["Denoising"]

PEER = RoleSpec("adapter", trained=True)
"""A second policy, trained beside the first from a start of its own."""


@registry.register("denoising")
class Denoising(Section):
    """Options of the method. With its defaults and the samples of a pair it prepares what ``diffusion_dpo`` does."""

    source: ClassVar[str] = "Ho et al., DDPM, arXiv:2006.11239, eq. 14; shared draws: Wallace et al., arXiv:2311.12908"
    evidence: ClassVar[str] = "ours"
    likelihood: ClassVar[str] = "denoising"
    accepts: ClassVar[frozenset[str]] = frozenset({"", *GROUPS})

    noise: Literal["shared", "independent"] = Field(
        default="shared", description="one noise for all samples of a record, or one for each"
    )
    draws: PositiveInt = Field(
        default=1, description="timestep and noise draws a record in each step: averaged, or the units of an objective"
    )
    empty_prompt_prob: Probability = Field(default=0.2, description="share of records shown with the empty caption")
    dropped_as: Dropped = Field(
        default="encode",
        description="what a dropped caption becomes: the encoded empty one, as in Diffusion-DPO's code, or zeros, which"
        " SDXL's pipeline guides away from",
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec(), "previous": RoleSpec(), "peer": PEER}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("dpo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise every sample of the batch ``draws`` times."""
        conditioning = drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as)
        first = next(iter(batch.media.values()))
        draws = []
        for draw in range(self.draws):
            keys = [(*key, draw) if draw else key for key in batch.keys]  # the first is that of other methods
            timesteps = context.family.sample_timesteps(context.random.uniform("timestep", keys)).to(first.device)
            groups = {}
            for group, clean in batch.media.items():
                noise = noise_like(group, clean, keys, context.random, shared=self.noise == "shared")
                groups[group] = (clean, noise, noise)
            draws.append(forward_rows(context.family.schedule, groups, timesteps, conditioning, batch.columns))
        return replace(join_draws(draws), no_grad=frozenset({"mismatched"} & batch.media.keys()))

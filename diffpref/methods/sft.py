"""Supervised fine-tuning on the chosen images: the plain denoising loss, no reference.

The baseline of the Diffusion-DPO paper (official code, ``--sft``): winners only, one timestep and one noise an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import Probability
from diffpref.core.contracts import Batch, Context, RoleSpec, Rows
from diffpref.methods import registry
from diffpref.methods._forward import Dropped, drop_prompts, forward_rows

__all__ = ["SFT"]


@registry.register("sft")
class SFT(Section):
    """Options of the method. ``nll`` on these log-likelihoods is half the mean squared error."""

    source: ClassVar[str] = "Wallace et al., arXiv:2311.12908, section 5; Ho et al., DDPM, arXiv:2006.11239, eq. 14"
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "denoising"

    empty_prompt_prob: Probability = Field(default=0.2, description="share of images shown with the empty caption")
    dropped_as: Dropped = Field(
        default="encode",
        description="what a dropped caption becomes: the encoded empty one, as in the official code, or zeros, which"
        " SDXL's pipeline guides away from",
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen"})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec()}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("nll", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise the chosen images."""
        chosen = batch.media["chosen"]
        uniform = context.random.uniform("timestep", batch.keys)
        timesteps = context.family.sample_timesteps(uniform).to(chosen.device)
        noise = context.random.normal("noise", batch.keys, chosen.shape[1:]).to(chosen)
        conditioning = drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as)
        groups = {"chosen": (chosen, noise, noise)}
        return forward_rows(context.family.schedule, groups, timesteps, conditioning, batch.columns)

"""RankDPO (Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, arXiv:2410.18013).

The candidates of a prompt, best of several generators, are noised at one timestep, each with noise of its own, and
the objective ``rank_dpo`` compares all of them at once (algorithm 2). What it calls phi follows from the stored scores
of several rewards: the share of comparisons that a candidate wins (algorithm 1), which the data's view counts under
``data.combine: strict_win_fraction``, or ``win_fraction`` with half a win for a tie. Training on a flow compares
velocity errors; the paper claims that without giving the formula.

Beta, learning rate and optimiser are not published. 5000 for SDXL and 2000 for flows are ours, from Diffusion-DPO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from diffpref.config import Recipe, Section
from diffpref.core.annotations import NonNegativeInt, Probability
from diffpref.core.contracts import Batch, Context, RoleSpec, Rows
from diffpref.methods import registry
from diffpref.methods._forward import Dropped, drop_prompts, forward_rows, noise_like

__all__ = ["RankDPO"]

FRACTIONS = ("win_fraction", "strict_win_fraction")


@registry.register("rank_dpo", aliases=("rankdpo",))
class RankDPO(Section):
    """Options of the method; the defaults are the paper's, as far as it gives them."""

    source: ClassVar[str] = (
        "Karthik et al., Scalable Ranked Preference Optimization for Text-to-Image Generation, ICCV 2025,"
        " arXiv:2410.18013, algorithms 1 and 2"
    )
    evidence: ClassVar[str] = "paper"
    likelihood: ClassVar[str] = "denoising"

    share_noise: bool = Field(
        default=False, description="one noise for all candidates, as in Diffusion-DPO's code; the paper draws one each"
    )
    empty_prompt_prob: Probability = Field(default=0.0, description="share of lists shown with the empty caption")
    dropped_as: Dropped = Field(default="encode", description="what a dropped caption becomes: the empty one, or zeros")
    min_rewards: NonNegativeInt = Field(
        default=2,
        description="rewards that data.score must name at least, whose comparisons are counted; the paper has 5; 0"
        " also takes what the record's judgements say",
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"list"})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec()}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("rank_dpo", {"beta": 5000.0})]

    def misfits(self, recipe: Recipe) -> Iterator[str]:
        """Tell where the recipe's data would not be ranked by comparisons of several rewards."""
        data, score = recipe.data, recipe.data.score
        named = score if isinstance(score, list) else [score] if score else []
        command = f"'diffpref score {data.source} --rewards NAME ... --output FOLDER' adds scores to data"
        if len(named) < self.min_rewards:
            yield (
                f"data.score: rank_dpo counts wins over at least {self.min_rewards} rewards"
                f" (method.rank_dpo.min_rewards), got {', '.join(named) or 'none'}; name them, [pickscore, hps_v21];"
                f" {command}, 'diffpref generate data/syn_pic_models --output FOLDER' makes them from prompts"
            )
        elif named and (not isinstance(score, list) or data.combine not in FRACTIONS):
            given = data.combine if isinstance(score, list) else repr(score)
            yield (
                f"data.combine: rank_dpo ranks by the share of comparisons that a candidate wins; set score:"
                f" [{', '.join(named)}] and combine: strict_win_fraction (the paper's), or win_fraction with half a"
                f" win for a tie; got {given}"
            )

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise the K candidates of each record (algorithm 2, lines 4 and 5)."""
        clean = batch.media["list"]
        uniform = context.random.uniform("timestep", batch.keys)
        timesteps = context.family.sample_timesteps(uniform).to(clean.device)
        noise = noise_like("list", clean, batch.keys, context.random, shared=self.share_noise)
        conditioning = drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as)
        groups = {"list": (clean, noise, noise)}
        return forward_rows(context.family.schedule, groups, timesteps, conditioning, batch.columns)

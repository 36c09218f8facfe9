"""Dual Caption Preference Optimization (Saeidi et al., arXiv:2502.06023): each side of a pair under its own caption.

The loss contrasts p(winner | z_w) with p(loser | z_l). Everything but the captions is Diffusion-DPO: one noise, one
timestep, both models asked alike; with equal captions it is that to the bit. As captions are part of the conditioning,
every text encoder of a family and each of their pooled embeddings tells the two sides apart; the published code does so
for Stable Diffusion alone. The captions lie with the candidates (``diffpref caption``, `diffpref.data.captions`).

Published: beta 500 in the command, 5000 in the script; no caption dropout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import Probability
from diffpref.core.contracts import Batch, Conditioning, Context, Rows
from diffpref.core.errors import ConfigError
from diffpref.data.captions import GENERATED, PROMPT, paraphrase_kind
from diffpref.methods import registry
from diffpref.methods._forward import drop_prompts
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.schedules import DiscreteSchedule, Schedule

__all__ = ["DCPO"]


@registry.register("dcpo", aliases=("dual_caption",))
class DCPO(DiffusionDPO):
    """Options of the method; the defaults are the official code's where it has them, those of Diffusion-DPO besides."""

    source: ClassVar[str] = (
        "Saeidi et al., Dual Caption Preference Optimization for Diffusion Models, TMLR 2025, arXiv:2502.06023;"
        " sahsaeedi/DCPO-T2I src/dcpo_trainer.py"
    )

    empty_prompt_prob: Probability = Field(
        default=0.0, description="share of pairs whose captions are replaced by the empty one, on both sides"
    )
    caption_mode: Literal["hybrid", "caption", "perturb"] = Field(
        default="hybrid",
        description="captions of winner and loser; caption: a captioner's of each; perturb: the prompt, and a"
        " paraphrase of it; hybrid, best in the paper: a captioner's, and a paraphrase of a captioner's",
    )
    perturb_level: Annotated[int, Field(ge=1, le=100)] = Field(
        default=60,
        description="how far paraphrases are from what they are made of, in percent; the paper's weak, medium and"
        " strong are 40, 60 and 80; it does not say which gave its best results, so the middle one is our choice",
    )
    caption: Annotated[str, Field(min_length=1)] = Field(
        default=GENERATED, description="kind of the captioner's captions in the data"
    )
    force_epsilon_target: bool = Field(
        default=False,
        description="predict noise whatever the checkpoint predicts, as the official code does with SD 2.1, a model of"
        " v; only to replicate it: such errors are no likelihood",
    )

    @property
    def captions(self) -> Mapping[str, str]:
        """Group -> kind of its caption."""
        base = PROMPT if self.caption_mode == "perturb" else self.caption
        rejected = base if self.caption_mode == "caption" else paraphrase_kind(base, self.perturb_level)
        return {"chosen": base, "rejected": rejected}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("dcpo", {"beta": 500.0})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Prepare what Diffusion-DPO does, with both sides told apart."""
        rows = super().prepare(batch, context)
        told = [drop_prompts(batch, context, self.empty_prompt_prob, self.dropped_as, group) for group in rows.groups]
        return replace(rows, conditioning=Conditioning.concatenate(told))

    def _schedule(self, context: Context) -> Schedule:
        schedule: Schedule = context.family.schedule
        if not self.force_epsilon_target:
            return schedule
        if not isinstance(schedule, DiscreteSchedule):
            raise ConfigError("method.dcpo.force_epsilon_target: is for chains; a flow predicts velocities")
        return replace(schedule, prediction_type="epsilon")

"""SePPO (arXiv:2410.05255): winners against what an earlier checkpoint of the policy makes of the same captions.

Good samples alone are needed. Every so many updates the policy is kept as a snapshot; the reference is one of these,
drawn anew each time, and it draws the loser of every record with the family's sampler. Whether that sample is pushed
away or drawn in, the objective decides by which of the two denoises the winner better (``flip_rate`` in the log).

The authors published no training code, so what papers and reviews leave open is an option: the interval of 30 updates
and the pool of 7 snapshots are told; sampler, guidance, shared noise and caption dropout are those of the code base
that they credit, Diffusion-DPO's. One stage of theirs, sampling included, is one interval here, with the samples of an
update drawn when its turn comes: the same ones, since the reference stands still in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from diffpref.config import Recipe
from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Batch, Context, RoleSpec, Rows, Snapshots
from diffpref.methods import registry
from diffpref.methods._drawing import Drawing
from diffpref.methods.denoising import Denoising
from diffpref.sampling import draw_latents, reencode_latents

__all__ = ["SePPO"]


@registry.register("seppo")
class SePPO(Denoising, Drawing):
    """Options of the method. With ``draw: latest`` it is SPIN-Diffusion, with ``draw: initial`` DITTO-like.

    ``draws`` of timestep and noise are averaged before the anchor is read, which is one noisy draw in the paper.
    """

    source: ClassVar[str] = (
        "Zhang et al., SePPO: Semi-Policy Preference Optimization for Diffusion Alignment, arXiv:2410.05255"
    )
    evidence: ClassVar[str] = "secondary"
    accepts: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset({"rejected"})
    passes: ClassVar[int] = 1
    group_size: ClassVar[int] = 1
    collect_every: ClassVar[int] = 1

    snapshot_every: PositiveInt | None = Field(
        default=None, description="updates between two snapshots of the policy; must be given; published: 30"
    )
    draw: Literal["uniform", "initial", "latest"] = Field(
        default="uniform", description="which snapshot becomes the reference: any, the start, or the newest"
    )
    num_snapshots: PositiveInt = Field(default=7, ge=2, description="snapshots held: the start and the newest")
    draw_every: PositiveInt | None = Field(
        default=None, description="updates between two draws of the reference; not given: with each snapshot"
    )

    reencode: bool = Field(
        default=False,
        description="turn samples into 8-bit pixels and encode these, as winners were; costs VAE and its memory. Where"
        " winners were drawn by a model, too, latents that never were pixels are told apart by that alone",
    )

    @property
    def decodes(self) -> bool:
        """Whether a run needs the VAE beside the denoiser."""
        return self.reencode

    def misfits(self, recipe: Recipe) -> Iterator[str]:
        """Yield a line where no interval of snapshots is given: only whoever knows how long the run is can say it."""
        given = recipe.roles.get("reference")
        if self.snapshot_every is None and (given is None or given.update is None):
            yield (
                "method.seppo.snapshot_every: must be given: after how many updates the policy is kept as one of the"
                " snapshots that the reference is drawn from; published: 30, as in"
                " --method '{seppo: {snapshot_every: 30}}'"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen"})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        rule = Snapshots(self.snapshot_every or 1, self.draw, self.num_snapshots, self.draw_every)
        return {"reference": RoleSpec("copy", rule, in_prepare=True)}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("seppo", {})]

    def collect(self, batch: Batch, context: Context) -> Batch:
        """Draw the loser of each record with the snapshot that is the reference now."""
        shape = batch.media["chosen"].shape[1:]
        made = draw_latents(batch, context, "reference", self.sampler, shape)
        if self.reencode:
            made = reencode_latents(batch, context, made, self.drawn_at_once)
        return replace(batch, media={**batch.media, "rejected": made})

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise winner and sample alike, as Diffusion-DPO does."""
        return replace(super().prepare(batch, context), depends_on=frozenset({"reference"}))

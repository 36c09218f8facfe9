"""The same answer to a picture and to an altered copy of it (VDPO), and which copy is taken (PaMi-VDPO).

Chosen is a record's chosen answer as it is, rejected are the same tokens after a picture or clip that was cropped,
shifted, masked or shuffled. Of several copies PaMi-VDPO takes one that is close to the original in meaning and about
which the model's answer differs most, so that an alteration which does not matter for this prompt is no negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from diffpref.core.annotations import PositiveInt, Probability
from diffpref.core.contracts import Batch, Conditioning, Context, RoleSpec, Rows
from diffpref.likelihood import answer_divergence
from diffpref.methods import registry
from diffpref.methods._pictures import Alteration, alter, replace_pixels
from diffpref.methods.language import Language
from diffpref.ranking import close_then_far

__all__ = ["VDPO", "PaMiVDPO"]

ASKED = frozenset({"token_kl"})
"""Quantities for which a role keeps its hidden states, and so its distributions."""


@registry.register("vdpo")
class VDPO(Language):
    """Options of the method; one copy of each picture."""

    source: ClassVar[str] = (
        "Ding et al., PaMi-VDPO: Mitigating Video Hallucinations by Prompt-Aware Multi-Instance Video Preference"
        " Learning, arXiv:2504.05810"
    )
    evidence: ClassVar[str] = "secondary"
    accepts: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset({"rejected"})

    alterations: tuple[Alteration, ...] = Field(
        default=("crop", "shift", "mask", "shuffle"),
        min_length=1,
        description="the ways of which one is drawn for a copy; reverse and frames are of clips, records with several"
        " pictures",
    )
    strength: Probability = Field(
        default=0.5, gt=0, lt=1, description="share of a picture that an alteration takes away or moves"
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen"})

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("vdpo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Put the chosen answer after the picture and after its copy; a label of the pair says nothing of these two."""
        altered, columns = self._altered(batch, context)
        both = replace(
            batch,
            media={"chosen": batch.media["chosen"], "rejected": batch.media["chosen"]},
            conditioning={"chosen": batch.conditioning["chosen"], "rejected": altered},
            columns={name: t for name, t in columns.items() if name != "preference"},
        )
        return super().prepare(both, context)

    def _altered(self, batch: Batch, context: Context) -> tuple[Conditioning, Mapping[str, Tensor]]:
        return self._copy(batch, context, 0), batch.columns

    def _copy(self, batch: Batch, context: Context, number: int) -> Conditioning:
        """Return what the model is told with altered pictures, by the record's key and the copy's number."""

        def change(pixels: Tensor, row: int) -> Tensor:
            draw = context.random.numpy("altered picture", *batch.keys[row], number)
            return alter(pixels, self.alterations, self.strength, draw)

        return replace_pixels(batch.conditioning["chosen"], "vdpo", change)


@registry.register("pami_vdpo")
class PaMiVDPO(VDPO):
    """Options of the method. What the paper's thresholds and weights are was not found; these are ours."""

    candidates: PositiveInt = Field(
        default=4, ge=2, description="altered copies of each picture, of which one is taken"
    )
    top_fraction: Probability = Field(
        default=0.5, gt=0, description="share of the copies, the closest ones, among which the selection is"
    )
    relevance_threshold: float = Field(
        default=-1.0, ge=-1, le=1, description="smallest cosine between the features of a copy and the picture's"
    )
    judge: Literal["policy", "reference"] = Field(
        default="policy", description="the role whose answers to copies are compared"
    )
    weighting: Literal["none", "relevance", "divergence"] = Field(
        default="relevance",
        description="by what a pair's loss is multiplied: nothing, the cosine of the copy taken, or its divergence as a"
        " share of ln 2",
    )

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        roles = super().roles
        return {**roles, "reference": replace(roles["reference"], in_prepare=True)} if self.judge != "policy" else roles

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """As `VDPO.prepare`, with the copy that is close and yet answered differently."""
        return replace(super().prepare(batch, context), depends_on=frozenset({self.judge}))

    def _altered(self, batch: Batch, context: Context) -> tuple[Conditioning, Mapping[str, Tensor]]:
        clean = batch.conditioning["chosen"]
        copies = [self._copy(batch, context, number) for number in range(self.candidates)]
        relevance, divergence = self._compare(batch, copies, context)
        taken = close_then_far(relevance, divergence, self.relevance_threshold, self.top_fraction)
        rows = torch.arange(len(taken), device=taken.device)
        altered = {name: torch.stack([copy.tensors[name] for copy in copies])[taken, rows] for name in clean.tensors}
        columns = dict(batch.columns)
        if self.weighting != "none":
            weight = {"relevance": relevance.clamp(0, 1), "divergence": divergence / torch.log(torch.tensor(2.0))}
            own = weight[self.weighting][rows, taken]
            columns["weight"] = own * columns["weight"] if "weight" in columns else own
        return Conditioning(altered), columns

    def _compare(self, batch: Batch, copies: Sequence[Conditioning], context: Context) -> tuple[Tensor, Tensor]:
        """Return (B, K) how close each copy's features are, and how much the answer to it differs."""
        clean = batch.conditioning["chosen"]
        role: Any = context.network(self.judge)  # what banks hold has no distributions
        questions = [
            super(VDPO, self).prepare(
                replace(batch, media={"chosen": batch.media["chosen"]}, conditioning={"chosen": told}), context
            )
            for told in (clean, *copies)
        ]
        labels = questions[0].inputs["labels"]
        own, *others = (role(question, wanted=ASKED) for question in questions)
        features = [context.family.features(told.tensors) for told in (clean, *copies)]
        relevance = [cosine_similarity(features[0], other, dim=-1) for other in features[1:]]
        divergence = [answer_divergence(own, other, labels) for other in others]
        return torch.stack(relevance, dim=1), torch.stack(divergence, dim=1)

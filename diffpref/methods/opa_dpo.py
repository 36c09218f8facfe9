"""OPA-DPO: a true, a revised and the original answer to a picture, and the good ones after a corrupted picture too.

Gold is the true answer, chosen the revised and rejected the original one. Mismatched are the true answer's tokens and
corrupted the revised answer's, each after the picture with a random share of its pixels replaced by its mean. Where
data mark what was wrong, tokens weigh by how severe it was, and between pictures by whether the picture was misread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffpref.core.annotations import NonNegative, PositiveInt, Probability
from diffpref.core.contracts import Batch, Context, Rows
from diffpref.methods import registry
from diffpref.methods._pictures import corrupt, replace_pixels
from diffpref.methods.language import Language

__all__ = ["OPADPO"]


@registry.register("opa_dpo")
class OPADPO(Language):
    """Options of the method."""

    source: ClassVar[str] = (
        "Yang et al., Mitigating Hallucinations in Large Vision-Language Models via DPO: On-Policy Data Hold the Key,"
        " arXiv:2501.09695"
    )
    evidence: ClassVar[str] = "official"
    accepts: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset(
        {"mismatched", "corrupted", "chosen_token_score", "rejected_token_score", "corrupted_token_score"}
    )

    corrupted_share: Probability = Field(
        default=0.3, gt=0, description="share of a picture's pixels that its mean replaces"
    )
    block: PositiveInt = Field(
        default=1, description="side of the squares that are replaced, in pixels; the official code also has 14"
    )
    severity_weights: tuple[NonNegative, NonNegative, NonNegative, NonNegative] = Field(
        default=(2.5, 2.0, 1.5, 1.0), description="weight of tokens by severity: 1 (worst) to 4 (right)"
    )
    image_weight: NonNegative = Field(
        default=3.0, description="weight between pictures of tokens where the picture was misread; of others 1"
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen", "rejected", "gold"})

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("opa_dpo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Add the two good answers after the corrupted picture, and the weights of tokens."""

        def change(pixels: Tensor, row: int) -> Tensor:
            draw = context.random.numpy("corrupted picture", *batch.keys[row])
            return corrupt(pixels, self.corrupted_share, draw, self.block)

        made = {"mismatched": "gold", "corrupted": "chosen"}
        told = {group: replace_pixels(batch.conditioning[own], "opa_dpo", change) for group, own in made.items()}
        whole = replace(
            batch,
            media={**batch.media, **{group: batch.media[own] for group, own in made.items()}},
            conditioning={**batch.conditioning, **told},
            columns={**batch.columns, **self._weights(batch)},
        )
        return replace(super().prepare(whole, context), no_grad=frozenset())

    def _weights(self, batch: Batch) -> dict[str, Tensor]:
        """Return (B, T) the weight of each token; 1 where nothing is marked."""
        one = batch.media["chosen"].new_ones(batch.media["chosen"].shape, dtype=torch.float32)
        weights = torch.tensor((0.0, *self.severity_weights), device=one.device)
        found = {}
        for side in ("chosen", "rejected"):
            severity = batch.columns.get(f"{side}_token_score")
            found[f"{side}_token_score"] = one if severity is None else weights[severity.long()]
        misread = batch.columns.get("chosen_token_label")
        found["corrupted_token_score"] = one if misread is None else 1 + misread * (self.image_weight - 1)
        return found

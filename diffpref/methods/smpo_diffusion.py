"""SmPO-Diffusion (Lu et al., arXiv:2506.02698): inverted latents, and pairs that count as much as a reward is sure.

The inversion is that of `diffpref.methods.ddim_inpo` without noise and with one ReNoise correction of each step. Scores
of both samples, scaled by their range in the data, give the probability p that the chosen one is better; the logit of
the pair is multiplied by ``gamma (2 p - 1)``, so that near-ties teach next to nothing. The winner is the sample of the
larger score, whatever people said: pairs follow from ``data.score``.

Beta absorbs what Diffusion-DPO's does, and beside it gamma: the published 2000 (SD 1.5) and 5000 (SDXL) go with gamma
10. The official code gives every pair of a local batch the weight of the first, right for its batches of one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from diffpref.core.annotations import NonNegative, NonNegativeInt, Positive
from diffpref.core.contracts import Batch, Context, Rows
from diffpref.core.errors import ConfigError, DataError
from diffpref.methods import registry
from diffpref.methods._inverting import SIDES, Inverting
from diffpref.ranking import range_scale

__all__ = ["SmPODiffusion"]

logger = logging.getLogger(__name__)

SCORES = tuple(f"{side}_score" for side in SIDES)


@registry.register("smpo_diffusion", aliases=("smpo", "smpo-diffusion"))
class SmPODiffusion(Inverting):
    """Options of the method; the defaults are the official code's for SDXL. For SD 1.5 it takes 5 steps."""

    source: ClassVar[str] = (
        "Lu et al., Smoothed Preference Optimization via ReNoise Inversion for Aligning Diffusion Models with Varied"
        " Human Preferences, ICML 2025, arXiv:2506.02698"
    )
    evidence: ClassVar[str] = "official"

    eta: NonNegative | None = Field(default=0.0, description="random noise of each step of the inversion")
    renoise_steps: NonNegativeInt = Field(
        default=1, description="ReNoise: corrections of each step, one more call each; 0 is DDIM inversion"
    )
    label_from: Literal["scores", "preference"] = Field(
        default="scores",
        description="whence p, P(chosen is better), comes: from the scores of both samples, or from the data's own"
        " preference, such as data.score_labels: soft makes with a calibration",
    )
    gamma: Positive = Field(default=10.0, description="weight of a pair of which one is certain; 1 is plain DPO")
    score_range: Positive | None = Field(
        default=None,
        description="with label_from: scores: the largest minus the smallest score; not given: those of the data. The"
        " published 0.1665804460644722 is of PickScore's cosine over Pick-a-Pic v2",
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({*SIDES, *(SCORES if self.label_from == "scores" else ("preference",))})

    @property
    def makes(self) -> frozenset[str]:
        """The columns that are made of the scores."""
        return frozenset({"beta_scale", *(("preference",) if self.label_from == "scores" else ())})

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("smpo_diffusion", {"weight_from": "beta_scale"})]

    def settle(self, columns: Sequence[Mapping[str, Any]]) -> SmPODiffusion:
        """Return the method with the range of the data's scores, where that was not given.

        Args:
            columns: of every pair.

        Raises:
            DataError: all scores are the same.
        """
        if self.label_from != "scores" or self.score_range is not None:
            return self
        seen = [float(told[name]) for told in columns for name in SCORES]
        try:
            found = 1 / range_scale(seen)
        except DataError as error:
            raise DataError(f"method.smpo_diffusion.score_range: {error}; score the data with another reward") from None
        logger.info("smpo_diffusion: scores of %g to %g, score_range %g", min(seen), max(seen), found)
        return self.model_copy(update={"score_range": found})

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Invert as `Inverting.prepare`, and weigh each pair."""
        rows = super().prepare(batch, context)
        return replace(rows, columns={**rows.columns, **self._smoothed(batch.columns)})

    def _smoothed(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return (B,) p and ``gamma (2 p - 1)``; no gradient flows into data."""
        if self.label_from == "preference":
            return {"beta_scale": self.gamma * (2 * columns["preference"] - 1)}
        if self.score_range is None:
            raise ConfigError("method.smpo_diffusion.score_range: give it, or settle the method on its data")
        half = (columns["chosen_score"] - columns["rejected_score"]) / (2 * self.score_range)
        # 2 sigmoid(2 x) - 1 is tanh(x), without a difference of nearly equal numbers
        return {"preference": (2 * half).sigmoid(), "beta_scale": self.gamma * half.tanh()}

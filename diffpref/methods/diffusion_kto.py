"""Diffusion-KTO (arXiv:2404.04465): single samples, each desirable or not, against a reference point of the batch.

As in the official code each sample has a timestep and a noise of its own, there being no pairs. Its class balance is
``data.positive_share``, and what an image counts that won one comparison and lost another ``data.mixed_labels``. The
code's third reference point, of mismatched captions, is the objective ``diffusion_kto_mismatched``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffpref.core.contracts import RoleSpec
from diffpref.methods import registry
from diffpref.methods.denoising import Denoising

__all__ = ["DiffusionKTO"]


@registry.register("diffusion_kto", aliases=("diffusion-kto",))
class DiffusionKTO(Denoising):
    """Options of the method; the defaults are the official code's."""

    source: ClassVar[str] = (
        "Li et al., Aligning Diffusion Models by Optimizing Human Utility, NeurIPS 2024, arXiv:2404.04465"
    )
    evidence: ClassVar[str] = "official"
    accepts: ClassVar[frozenset[str]] = frozenset({"mismatched"})

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({""})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec()}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("diffusion_kto", {})]

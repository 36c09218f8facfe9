"""Diffusers pipelines; installed as ``diffpref.pipelines``.

    from diffpref.pipelines import BestOfNPipeline
    pipe = BestOfNPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", reward="pickscore")
    best = pipe("a red circle above a blue square", num_candidates=8).images[0]

Each file holds one `DiffusionPipeline`; `registry` maps the file's name to the class and imports it on use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "diffpref.pipelines":  # a second copy would hold a second set of classes
    raise ImportError(f"import diffpref.pipelines, not {__name__}")

from diffpref.core.registry import Registry

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffpref.pipelines.best_of_n import BestOfNOutput, BestOfNPipeline
    from diffpref.pipelines.guided_pairs import GuidedPairsOutput, GuidedPairsPipeline
    from diffpref.pipelines.inversion import InversionOutput, InversionPipeline

registry: Registry[type[DiffusionPipeline]] = Registry("pipeline", "diffpref.pipelines", lazy=True)

__all__ = [
    "BestOfNOutput",
    "BestOfNPipeline",
    "GuidedPairsOutput",
    "GuidedPairsPipeline",
    "InversionOutput",
    "InversionPipeline",
    "registry",
]

FILES = {"BestOfN": "best_of_n", "GuidedPairs": "guided_pairs", "Inversion": "inversion"}


def __getattr__(name: str) -> Any:
    file = FILES.get(name.removesuffix("Pipeline").removesuffix("Output"))
    if file is not None and name in __all__:  # diffusers takes seconds to import
        return getattr(import_module(f"diffpref.pipelines.{file}"), name)
    raise AttributeError(f"module 'diffpref.pipelines' has no attribute '{name}'")

"""Diffusers pipelines; installed as ``diffpref.pipelines``.

    from diffpref.pipelines import BestOfNPipeline
    pipe = BestOfNPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", reward="pickscore")
    best = pipe("a red circle above a blue square", num_candidates=8).images[0]

Each file holds one `DiffusionPipeline`; `registry` maps the file's name to the class and imports it on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "diffpref.pipelines":  # a second copy would hold a second set of classes
    raise ImportError(f"import diffpref.pipelines, not {__name__}")

from diffpref.core.registry import Registry

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffpref.pipelines.best_of_n import BestOfNOutput, BestOfNPipeline

registry: Registry[type[DiffusionPipeline]] = Registry("pipeline", "diffpref.pipelines", lazy=True)

__all__ = ["BestOfNOutput", "BestOfNPipeline", "registry"]


def __getattr__(name: str) -> Any:
    if name in ("BestOfNOutput", "BestOfNPipeline"):  # diffusers takes seconds to import
        from diffpref.pipelines import best_of_n

        return getattr(best_of_n, name)
    raise AttributeError(f"module 'diffpref.pipelines' has no attribute '{name}'")

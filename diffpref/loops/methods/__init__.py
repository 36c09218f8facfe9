"""One file a loop: who draws, what is made of the judge's verdict, what a round is trained with and held to."""

from __future__ import annotations

from diffpref.core.registry import Registry
from diffpref.loops.methods._base import LoopMethod

__all__ = ["LoopMethod", "registry"]

registry: Registry[type[LoopMethod]] = Registry("loop", "diffpref.loops.methods", group="diffpref.loops")

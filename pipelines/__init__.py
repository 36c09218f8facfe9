"""Diffusers pipelines; installed as ``diffpref.pipelines``."""

from __future__ import annotations

if __name__ != "diffpref.pipelines":  # a second copy would hold a second set of classes
    raise ImportError(f"import diffpref.pipelines, not {__name__}")

__all__: list[str] = []

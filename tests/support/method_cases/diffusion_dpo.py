"""The pairs as they are."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("diffusion_dpo")

"""Weighed by the oracle's scores, whose range the data tell."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("smpo_diffusion", {"method": {"smpo_diffusion": {"num_steps": 4, "landing": "exact"}}})

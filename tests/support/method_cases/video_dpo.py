"""Diffusion-DPO under the settings of videos and flows."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("video_dpo")

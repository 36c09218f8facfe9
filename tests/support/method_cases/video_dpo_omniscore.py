"""Pairs that weigh by how rare their gap of scores is, each clip at a timestep and with noise of its own."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase(
    "video_dpo_omniscore",
    {
        "method": {"video_dpo_omniscore": {"share_timestep": False, "share_noise": False}},
        "data__rarity_bins": 3,
    },
)

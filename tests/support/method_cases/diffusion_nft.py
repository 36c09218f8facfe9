"""Prompts alone, and a reward that tells noise apart."""

from __future__ import annotations

from method_cases import FAMILIES, MethodCase

NFT = {"rewards": [{"jpeg": {"output": "incompressibility"}}], "group_size": 2, "num_inference_steps": 3}
NO_FLOW = "regresses velocities, which chains of timesteps have not"

CASE = MethodCase(
    "diffusion_nft",
    {"method": {"diffusion_nft": NFT}, "data__source": "shapes:seen:8", "data__score": None},
    empty={family: NO_FLOW for family in FAMILIES if family != "sd3"},
)

"""From a LoRA that an update of Diffusion-DPO has moved away from the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffpref.config import build_recipe
from diffpref.training import Trainer
from method_cases import MethodCase


def from_a_start(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Train the LoRA to begin with."""
    training = {**keys["training"], "steps": 1}
    start = {**keys, "method": "diffusion_dpo", "output": str(folder / "start"), "training": training}
    Trainer(build_recipe(start)).fit()
    return {**keys, "adapter": {"start": str(folder / "start" / "lora")}}


NO_TRAJECTORY = "inverts to the end of a chain or a flow; EDM's levels have none"
CASE = MethodCase(
    "inversion_dpo",
    {"method": {"inversion_dpo": {"num_steps": 3}}},
    empty={"svd": NO_TRAJECTORY},
    prepare=from_a_start,
)

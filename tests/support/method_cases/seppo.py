"""Winners alone, and a snapshot after each update; three steps draw from up to three."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase(
    "seppo", {"method": {"seppo": {"snapshot_every": 1, "num_inference_steps": 2, "guidance_scale": 2.0}}}
)

"""Guided pairs of clips."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_cases import PROMPTS, PipelineCase, noise_pictures


def inputs(count: int) -> dict[str, Any]:
    return {
        "video": noise_pictures(3, 3, 64, 64, 3)[:count],
        "prompt": list(PROMPTS[:count]),
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "strength": (0.4, 1.0),
    }


def rows(output: Any) -> list[np.ndarray]:
    return list(output[0])


CASE = PipelineCase(
    name="guided_pairs",
    families=("unet3d", "animatediff", "animatediff_sdxl"),
    inputs=inputs,
    rows=rows,
    shared=frozenset({"num_inference_steps", "guidance_scale", "strength"}),
)

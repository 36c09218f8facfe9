"""Inversion of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_cases import PROMPTS, PipelineCase, noise_pictures


def inputs(count: int) -> dict[str, Any]:
    return {
        "image": noise_pictures(3, 64, 64, 3)[:count],
        "prompt": list(PROMPTS[:count]),
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
    }


def rows(output: Any) -> list[np.ndarray]:
    return list(output[0])


CASE = PipelineCase(
    name="inversion",
    families=("sd", "sdxl", "sd3"),
    inputs=inputs,
    rows=rows,
    shared=frozenset({"num_inference_steps", "guidance_scale"}),
    without={"sd3": ("text_encoder_3", "tokenizer_3")},
)

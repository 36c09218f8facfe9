"""Best of N, whose candidates are drawn from seeds by the stock pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_cases import PROMPTS, PipelineCase


def inputs(count: int) -> dict[str, Any]:
    return {
        "prompt": list(PROMPTS[:count]),
        "seeds": [1, 2],
        "num_inference_steps": 2,
        "height": 64,
        "width": 64,
        "guidance_scale": 2.0,
    }


def rows(output: Any) -> list[np.ndarray]:
    return list(output[0])


CASE = PipelineCase(
    name="best_of_n",
    families=("sd", "sdxl"),
    inputs=inputs,
    rows=rows,
    shared=frozenset({"seeds", "num_inference_steps", "height", "width", "guidance_scale"}),
    options={"reward": "jpeg"},
    takes_generators=False,
    is_watched=False,
)

"""What a Diffusion-DPO step of SD3 and of families of videos costs at real size: milliseconds a pair, peak memory.

    python benchmarks/gpu_families.py --output benchmarks/gpu_families.json
    python benchmarks/gpu_families.py --tiny                        # the same code at toy size on the CPU, in seconds

The denoisers are those of SD3-medium at 1024 pixels, of ModelScope's text-to-video model (a UNet3DConditionModel) with
16 frames of 256 pixels, and of AnimateDiff on SDXL with 16 frames of 1024 pixels; weights are random, made on the
device. What a step is and how it is measured is as in `gpu_sdxl.py`: bf16, a LoRA with float32 weights on the attention
projections, the network without it as the reference, both samples of every pair in one batch.
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dpo_step
import torch
from family_steps import CASES, FamilyStep
from gpu_sdxl import Measurement, describe, measure, show


def run(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure a family; return what the numbers hold for, with a row for each setting."""
    case, options = CASES[name], {"rank": given.rank, "attention": given.attention}
    modes = {"off": [False], "on": [True], "both": [False, True]}[given.checkpointing]
    tflop = {
        mode: dpo_step.count_tflop(FamilyStep(case, given.tiny, "meta", "bf16", rank=given.rank), mode)
        for mode in modes
    }
    step = FamilyStep(case, given.tiny, given.device, given.precision, **options)
    rows: list[Measurement] = []
    for mode in modes:
        for pairs in given.pairs:
            gc.collect()  # an earlier setting that did not fit leaves its tensors in the frames of its exception
            if step.device.type == "cuda":
                torch.cuda.empty_cache()
            rows.append(measure(step, pairs, mode, tflop[mode], given.warmup, given.repeats))
    about = {"family": name, "latents": list(step.latent_shape), **describe(step, given)}
    print(f"{json.dumps(about)}\n\n{show(rows, given.ceiling)}\n", flush=True)
    return {**about, "rows": [asdict(row) for row in rows]}


def main() -> None:
    """Measure every family in every setting, print a table of each and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2], help="pairs in a step, as one batch")
    parser.add_argument("--checkpointing", choices=["off", "on", "both"], default="both", help="of activations")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--attention", choices=["native", "xformers"], default="native")
    parser.add_argument("--rank", type=int, default=64, help="of the LoRA")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are timed, at least 1")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each setting")
    parser.add_argument("--ceiling", type=float, default=790.0, help="TFLOP/s of a large bf16 product; 790: one H200")
    parser.add_argument("--device", help="not given: cuda, or with --tiny cpu")
    parser.add_argument("--tiny", action="store_true", help="denoisers of toy size")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    given.device = given.device or ("cpu" if given.tiny else "cuda")
    if given.warmup < 1 or given.repeats < 1 or min(given.pairs) < 1 or given.rank < 1:
        parser.error("--pairs, --rank, --warmup and --repeats must be at least 1")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; try --tiny")
    found = []
    for name in given.families:
        found.append(run(name, given))
        if given.output is not None:  # after each, so that what was measured is kept
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

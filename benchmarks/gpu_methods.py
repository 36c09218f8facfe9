"""What a training step of each method costs at real size: milliseconds a pair, forwards, peak memory.

    python benchmarks/gpu_methods.py --output benchmarks/gpu_methods.json
    python benchmarks/gpu_methods.py --tiny                         # the same code at toy size on the CPU, in seconds

The denoisers are those of SDXL and SD3-medium at 1024 pixels, and for DenseDPO AnimateDiff on SDXL with 16 frames of
1024 pixels; weights are random, made on the device; bf16, a LoRA with float32 weights on the attention projections.
Method, likelihood and objective are those of training with their published settings: inversions, sampled losers, lists
of four. A step is what training does with a cached batch. As its cost depends on the timesteps that are drawn where a
method inverts, times are means over ``--repeats`` steps, and stand beside the forwards of the same steps: one is one
sample through the denoiser once.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_sdxl import clock, describe
from method_steps import CLIPS, METHODS, PICTURES, MethodStep, make_step


@dataclass(frozen=True)
class Measurement:
    """One row of the table; a pair is one of RankDPO's lists too. Without times where the memory did not suffice."""

    model: str
    method: str
    pairs: int
    ms_per_pair: float | None = None
    ms_per_pair_slowest: float | None = None
    forwards_per_pair: float | None = None
    of_them_backward: float | None = None
    peak_gib: float | None = None
    largest_log_ratio_at_start: float | None = None


def measure(model: str, name: str, pairs: int, given: argparse.Namespace) -> tuple[Measurement, dict[str, object]]:
    """Warm up, then time steps of a fresh model; return the row and what it holds for."""
    made = make_step(
        model, given.tiny, given.device, given.precision, rank=given.rank, attention=given.attention
    )  # a fresh one: methods leave snapshots behind
    about, step, cuda = describe(made, given), MethodStep(made, name), made.device.type == "cuda"
    try:
        step.start(pairs, given.checkpointing == "on")
        start = step().abs().max().item()  # before any update: exactly 0 where both roles run the same kernels
        for _ in range(given.warmup - 1):
            step()
        step.counts.update({False: 0, True: 0})
        if cuda:
            torch.cuda.reset_peak_memory_stats(step.device)
        each = [milliseconds / pairs for milliseconds in clock(step, given.repeats, step.device)]
    except torch.OutOfMemoryError:
        return Measurement(model, name, pairs), about
    asked = {grad: count / pairs / given.repeats for grad, count in step.counts.items()}
    peak = torch.cuda.max_memory_allocated(step.device) / 2**30 if cuda else None
    row = Measurement(
        model, name, pairs, statistics.fmean(each), max(each), sum(asked.values()), asked[True], peak, start
    )
    return row, about


def show(rows: list[Measurement]) -> str:
    """Return the table, in Markdown."""
    lines = [
        "| model | method | pairs | ms a pair (slowest) | forwards a pair | of them backward | ms a forward |"
        " peak GiB | log-ratio at start |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        head = f"| `{row.model}` | `{row.method}` | {row.pairs} |"
        if row.ms_per_pair is None or row.forwards_per_pair is None:
            lines.append(f"{head} out of memory | | | | | |")
            continue
        times = f"{row.ms_per_pair:.1f} ({row.ms_per_pair_slowest:.1f}) | {row.forwards_per_pair:.4g}"
        peak = "" if row.peak_gib is None else f"{row.peak_gib:.1f}"
        rest = f"{row.of_them_backward:.4g} | {row.ms_per_pair / row.forwards_per_pair:.1f} | {peak}"
        lines.append(f"{head} {times} | {rest} | {row.largest_log_ratio_at_start:.1g} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every method on every model that it runs on, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*PICTURES, *CLIPS], default=[*PICTURES, *CLIPS])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--pairs", type=int, nargs="+", default=[1], help="pairs, or lists, in a step, as one batch")
    parser.add_argument("--checkpointing", choices=["off", "on"], default="on", help="of activations")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--attention", choices=["native", "xformers"], default="native")
    parser.add_argument("--rank", type=int, default=64, help="of the LoRA")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are timed, at least 1")
    parser.add_argument("--repeats", type=int, default=8, help="timed steps of each setting")
    parser.add_argument("--device", help="not given: cuda, or with --tiny cpu")
    parser.add_argument("--tiny", action="store_true", help="denoisers of toy size")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    given.device = given.device or ("cpu" if given.tiny else "cuda")
    if given.warmup < 1 or given.repeats < 1 or min(given.pairs) < 1 or given.rank < 1:
        parser.error("--pairs, --rank, --warmup and --repeats must be at least 1")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; try --tiny")
    models: dict[str, Any] = {}
    rows: list[Measurement] = []
    for model in given.models:
        for name in [name for name in given.methods if (name == "dense_dpo") == (model in CLIPS)]:
            for pairs in given.pairs:
                gc.collect()  # the model before, and what did not fit, which the frames of its exception hold
                if given.device.startswith("cuda"):
                    torch.cuda.empty_cache()
                row, about = measure(model, name, pairs, given)
                rows.append(row)
                models[model] = about
                print(show([row]).splitlines()[-1], flush=True)
                if given.output is not None:  # after each, so that what was measured is kept
                    given.output.parent.mkdir(parents=True, exist_ok=True)
                    content = {"models": models, "rows": [asdict(row) for row in rows]}
                    given.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\n{json.dumps(models)}\n\n{show(rows)}")


if __name__ == "__main__":
    main()

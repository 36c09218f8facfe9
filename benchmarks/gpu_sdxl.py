"""What a Diffusion-DPO step of a real-size SDXL costs: milliseconds a pair, peak memory, TFLOP/s.

    python benchmarks/gpu_sdxl.py --output benchmarks/gpu_sdxl.json
    python benchmarks/gpu_sdxl.py --tiny                            # the same code at toy size on the CPU, in seconds

The denoiser has the 2.57 billion parameters of SDXL, random, made on the device; latents are 4 x 128 x 128 (1024
pixels); a LoRA on the attention projections with float32 weights is the policy, the same network with the adapter off
the reference. A step is what training does with a cached batch: noising, reference forward, policy forward and backward
on both images of every pair in one batch, likelihood, loss, clipping, AdamW. Reading data and drawing noise are not in
it. It needs torch, diffusers, peft and what these need, and the diffpref folder on PYTHONPATH; no pydantic, no tyro.

TFLOP are those of matrix products, convolutions and attention (2 a multiply-add), counted on a copy without storage:
what the step does by definition, forwards recomputed by checkpointing included, but not what an attention kernel
recomputes in its backward. TFLOP/s is that over the measured time. The margin at start is the largest logit before the
first update: 0 where policy and reference run the same kernels.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import peft
import torch
from dpo_step import DpoStep
from sdxl_step import SDXL, TOY, Step, count_tflop


@dataclass(frozen=True)
class Measurement:
    """One row of the table; everything None but the setting where the memory did not suffice."""

    pairs: int
    checkpointing: bool
    tflop_per_pair: float
    ms_per_pair: float | None = None
    ms_per_pair_fastest: float | None = None
    ms_per_pair_slowest: float | None = None
    peak_gib: float | None = None
    tflops: float | None = None
    largest_margin_at_start: float | None = None


def clock(function: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Return the milliseconds of each call; on CUDA by events, so that the host does not wait between calls."""
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(repeats):
            function()
            marks.append(time.perf_counter())
        return [1e3 * (after - before) for before, after in itertools.pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        function()
        event.record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]


def measure(step: DpoStep, pairs: int, checkpointing: bool, tflop: float, warmup: int, repeats: int) -> Measurement:
    """Warm up, then time steps; a row without times where the memory does not suffice."""
    cuda = step.device.type == "cuda"
    blank = Measurement(pairs, checkpointing, tflop)
    try:
        step.start(pairs, checkpointing)
        margin = step().abs().max().item()  # before any update: exactly 0 where both roles run the same kernels
        for _ in range(warmup - 1):
            step()
        if cuda:
            torch.cuda.reset_peak_memory_stats(step.device)
        times = clock(step, repeats, step.device)
    except torch.OutOfMemoryError:
        return blank
    each = [milliseconds / pairs for milliseconds in times]
    median = statistics.median(each)
    peak = torch.cuda.max_memory_allocated(step.device) / 2**30 if cuda else None
    return Measurement(pairs, checkpointing, tflop, median, min(each), max(each), peak, 1e3 * tflop / median, margin)


def describe(step: DpoStep, given: argparse.Namespace) -> dict[str, object]:
    """Return what the numbers hold for."""
    chosen = {name: value for name, value in vars(given).items() if name not in ("output", "device")}
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, peft)}
    cuda = step.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(step.device) if cuda else step.device.type,
        "parameters": sum(parameter.numel() for parameter in step.network.parameters()) - step.num_trained,
        "trained_parameters": step.num_trained,
        **chosen,
        "attention": step.attention,
        "versions": versions,
    }


def show(rows: list[Measurement], ceiling: float) -> str:
    """Return the table, in Markdown."""
    lines = [
        "| pairs | checkpointing | ms a pair (fastest to slowest) | peak GiB | TFLOP a pair | TFLOP/s |"
        f" of {ceiling:g} | margin at start |",
        "| ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        head = f"| {row.pairs} | {'on' if row.checkpointing else 'off'} |"
        if row.ms_per_pair is None or row.tflops is None:
            lines.append(f"{head} out of memory | | {row.tflop_per_pair:.3g} | | | |")
            continue
        spread = f"{row.ms_per_pair:.1f} ({row.ms_per_pair_fastest:.1f} to {row.ms_per_pair_slowest:.1f})"
        peak = "" if row.peak_gib is None else f"{row.peak_gib:.1f}"
        share = f"{row.tflops / ceiling:.1%} | {row.largest_margin_at_start:.1g}"
        lines.append(f"{head} {spread} | {peak} | {row.tflop_per_pair:.3g} | {row.tflops:.3g} | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every setting, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2, 4, 8], help="pairs in a step, as one batch")
    parser.add_argument("--checkpointing", choices=["off", "on", "both"], default="both", help="of activations")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--attention", choices=["native", "xformers"], default="native")
    parser.add_argument("--compile", action="store_true", help="compile transformer and residual blocks one by one")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rank", type=int, default=64, help="of the LoRA")
    parser.add_argument("--warmup", type=int, default=3, help="steps before those that are timed, at least 1")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each setting")
    parser.add_argument("--ceiling", type=float, default=790.0, help="TFLOP/s of a large bf16 product; 790: one H200")
    parser.add_argument("--device", help="not given: cuda, or with --tiny cpu")
    parser.add_argument("--tiny", action="store_true", help="a denoiser of toy size")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    given.device = given.device or ("cpu" if given.tiny else "cuda")
    if given.warmup < 1 or given.repeats < 1 or min(given.pairs) < 1 or given.rank < 1:
        parser.error("--pairs, --rank, --warmup and --repeats must be at least 1")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; try --tiny")
    config = TOY if given.tiny else SDXL
    modes = {"off": [False], "on": [True], "both": [False, True]}[given.checkpointing]
    tflop = {mode: count_tflop(config, given.rank, mode) for mode in modes}
    step = Step(
        config,
        given.device,
        given.precision,
        rank=given.rank,
        attention=given.attention,
        compiled=given.compile,
        channels_last=given.channels_last,
    )
    rows = []
    for mode in modes:
        for pairs in given.pairs:
            gc.collect()  # an earlier setting that did not fit leaves its tensors in the frames of its exception
            if step.device.type == "cuda":
                torch.cuda.empty_cache()
            rows.append(measure(step, pairs, mode, tflop[mode], given.warmup, given.repeats))
            print(show(rows[-1:], given.ceiling).splitlines()[-1], flush=True)
    about = describe(step, given)
    print(f"\n{json.dumps(about)}\n\n{show(rows, given.ceiling)}")
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        content = {**about, "rows": [asdict(row) for row in rows]}
        given.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

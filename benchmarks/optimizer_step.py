"""What an optimiser step costs: torch's AdamW one tensor at a time, the fused kernel, and moments in 8 bits.

    python benchmarks/optimizer_step.py [--repeats 30] [--full]

The weights are those of the tiny SDXL of the tests: its LoRA, or with --full all of it. The three take turns in a run;
the ratio of each turn is taken to the plain step of the same turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time

import torch

from diffpref.config import Optim
from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.models.adapters import registry as adapters
from diffpref.training.optimizer import make_optimizer

CPU = torch.device("cpu")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Time the optimisers in turn.")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--full", action="store_true", help="all weights instead of a LoRA of rank 256")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {"plain": Optim(fused=False), "fused": Optim(fused=True)}
    if importlib.util.find_spec("bitsandbytes"):
        kinds["8 bits"] = Optim(kind="adamw8bit")
    optimizers = {name: make(optim, given.full) for name, optim in kinds.items()}
    for optimizer in optimizers.values():
        optimizer.step()  # the first makes the state
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(given.repeats):
        for name, optimizer in optimizers.items():
            started = time.process_time()
            optimizer.step()
            times[name].append(time.process_time() - started)
    sys.stdout.write(show(optimizers, times))


def make(optim: Optim, full: bool) -> torch.optim.Optimizer:
    """Return an optimiser over the weights, which have gradients."""
    family = registry.get("sdxl").tiny()
    adapter = adapters.get("full")() if full else adapters.get("lora")(rank=256)
    groups = adapter.install(family, Random(0))
    for parameter in (p for group in groups.values() for p in group):
        parameter.grad = torch.full_like(parameter, 1e-3)
    return make_optimizer(optim, groups, CPU)


def show(optimizers: dict[str, torch.optim.Optimizer], times: dict[str, list[float]]) -> str:
    """Return a Markdown table: milliseconds, ratio to plain with its quartiles, bytes of state a weight."""
    lines = [
        "| step | CPU ms, median | plain / this, quartiles | bytes of state a weight |",
        "| --- | --- | --- | --- |",
    ]
    for name, own in times.items():
        ratios = [plain / this for plain, this in zip(times["plain"], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        weights = [p for group in optimizers[name].param_groups for p in group["params"]]
        state = sum(t.nbytes for s in optimizers[name].state.values() for t in tensors(s))
        share = state / sum(p.numel() for p in weights)
        lines.append(
            f"| {name} | {1e3 * statistics.median(own):.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {share:.2f} |"
        )
    return "\n".join(lines) + "\n"


def tensors(state: dict[str, object]) -> list[torch.Tensor]:
    """Return the tensors of a weight's state that are its own; the 8-bit code book is shared."""
    return [t for name, t in state.items() if isinstance(t, torch.Tensor) and not name.startswith("qmap")]


if __name__ == "__main__":
    main()

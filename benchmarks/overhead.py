"""What our training loop costs besides the denoiser and the optimiser: ``python benchmarks/overhead.py``.

CPU time of one thread, a step of `diffpref.Trainer` as users run it, taken apart by timers around its parts. Host
overhead is everything but the forwards and the backward pass of the denoiser and the update of the weights (norm of the
gradient, clipping, optimiser): cache, draws, likelihood, objective, guards, metrics, logging. The model is that of
``step_time.py``. ``--profile`` prints Python's own profile of the same steps instead.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import step_time
import torch
import transformers

from diffpref.core.randomness import Random
from diffpref.training import Trainer, forward, update

DENOISER = ("forward of the policy", "forward of the reference", "backward")
WEIGHTS = ("norm and clipping", "optimiser")


class Clock:
    """CPU time by part; the time of a part inside another is counted once, for the inner one."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0.0]

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``work`` with its time counted for a part."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return work(*arguments, **options)
            finally:
                took = time.process_time() - start
                self.spent[part] = self.spent.get(part, 0.0) + took - self._inner.pop()
                self._inner[-1] += took

        return timed


def wrapped(trainer: Trainer, clock: Clock) -> ExitStack:
    """Put timers around the parts of a trainer's step; they go when the stack is closed."""
    method, updater, stack = type(trainer.plan.method), update.Updater, ExitStack()
    for part, holder, name in (
        ("backward", torch.Tensor, "backward"),
        ("norm and clipping", update, "gradient_norm"),
        ("norm and clipping", torch.nn.utils, "clip_grads_with_norm_"),
        ("optimiser", trainer.updater.optimizer, "step"),
        ("optimiser", trainer.updater.optimizer, "zero_grad"),
        ("batch from the cache", trainer.batches, "batch"),
        ("draws", Random, "normal"),
        ("draws", Random, "uniform"),
        ("rows", method, "prepare"),
        ("likelihood", type(trainer.updater.likelihood), "__call__"),
        ("objective", forward, "judge"),
        ("guards", updater, "_check_loss"),
        ("guards", updater, "_check_weights"),
        ("metrics", update, "update_metrics"),
        ("log", trainer.log, "write"),
        ("what else moves", trainer.moving, "after_update"),
    ):
        stack.enter_context(patch.object(holder, name, clock.around(part, getattr(holder, name))))
    for name, role in list(trainer.roles.items()):
        live = getattr(role, "role", None)
        if live is not None:  # behind a bank: looking up is ours, asking is the denoiser
            object.__setattr__(role, "role", clock.around(f"forward of the {name}", live))
        part = "bank" if live is not None else f"forward of the {name}"
        trainer.roles[name] = clock.around(part, role)  # type: ignore[assignment]
    return stack


def measure(folder: Path, path: str, pairs: int, repeats: int, bank: bool) -> dict[str, float]:
    """Return CPU milliseconds a step by part; ``rest`` is what no timer saw."""
    trainer = step_time.make_trainer(folder, f"bank {bank}", path, pairs, repeats + 5)
    trainer.setup()
    if not bank:
        trainer.roles["reference"] = trainer.banked["reference"].role
    clock, steps = Clock(), trainer.steps()
    for _ in range(5):  # four fill the bank
        next(steps)
    seen: list[dict[str, float]] = []
    with wrapped(trainer, clock):
        for _ in range(repeats):
            clock.spent.clear()
            start = time.process_time()
            next(steps)
            total = time.process_time() - start
            seen.append({**clock.spent, "rest": total - sum(clock.spent.values())})
    parts = dict.fromkeys(part for row in seen for part in row)
    return {part: 1e3 * statistics.median(row.get(part, 0.0) for row in seen) for part in parts}


def share(parts: dict[str, float]) -> float:
    """Return host overhead as a share of the step."""
    return 1 - sum(parts.get(name, 0.0) for name in (*DENOISER, *WEIGHTS)) / sum(parts.values())


def show(found: dict[str, dict[str, float]]) -> str:
    """Return the table, in Markdown."""
    names = dict.fromkeys([*DENOISER, *WEIGHTS, *(part for parts in found.values() for part in parts)])
    lines = [f"| CPU ms a step | {' | '.join(found)} |", f"| :--- |{' ---: |' * len(found)}"]
    for name in names:
        lines.append(f"| {name} | {' | '.join(f'{parts.get(name, 0.0):.2f}' for parts in found.values())} |")
    lines.append(f"| **step** | {' | '.join(f'{sum(parts.values()):.1f}' for parts in found.values())} |")
    lines.append(f"| **host overhead** | {' | '.join(f'{100 * share(parts):.1f} %' for parts in found.values())} |")
    return "\n".join(lines)


def profiled(folder: Path, path: str, pairs: int, repeats: int) -> Iterator[str]:
    """Yield lines of Python's profile of our own modules, by the time spent in each function itself and below."""
    trainer = step_time.make_trainer(folder, "profiled", path, pairs, repeats + 5)
    steps = trainer.steps()
    for _ in range(5):
        next(steps)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(repeats):
        next(steps)
    profile.disable()
    rows = []
    for (file, line, function), (_, calls, own, below, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "/diffpref/" in file:
            where = f"{file.rsplit('/diffpref/', 1)[1]}:{line} {function}"
            rows.append(
                (below, f"{calls / repeats:8.1f} {1e3 * own / repeats:8.2f} {1e3 * below / repeats:8.2f}  {where}")
            )
    yield "   calls   own ms below ms  a step"
    yield from (text for _, text in sorted(rows, reverse=True)[:40])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="an SDXL, such as bundled:shapes-sdxl; not given: that of step_time.py")
    parser.add_argument("--pairs", type=int, default=8, help="in a step")
    parser.add_argument("--repeats", type=int, default=60, help="timed steps")
    parser.add_argument("--profile", action="store_true", help="print a profile by function instead")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = given.path or str(folder / "model")
        if not given.path:
            step_time.proportioned().pipeline().save_pretrained(path)
        side = step_time.load_family("sdxl", path).native_resolution()
        step_time.write_pairs(folder / "pairs", 4 * given.pairs, side)
        if given.profile:
            print("\n".join(profiled(folder, path, given.pairs, given.repeats)))
            return
        found = {kind: measure(folder, path, given.pairs, given.repeats, kind == "bank") for kind in ("live", "bank")}
    print(json.dumps(found, indent=1) if given.json else show(found))


if __name__ == "__main__":
    main()

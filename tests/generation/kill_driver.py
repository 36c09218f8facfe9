"""Run by test_killed_generation: processes that generate on one folder and are killed at random moments.

One process imports the library once and forks the ones that work and die. It prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffpref.generation import GenerationPlan, generate

PLAN = GenerationPlan(tuple(f"prompt {number}" for number in range(50)), candidates=4, unit_size=5)
UNITS = {PLAN.unit(number)[0]: number for number in range(PLAN.num_units)}
UNIT_SECONDS = 0.05  # about as long as a unit takes


def work(folder: Path, log: Path) -> int:
    """Start a process that generates; each unit that it begins is a line of the log, with whether it was there."""
    if child := os.fork():
        return child

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        unit = UNITS[prompts[0]]
        there = (folder / f"part-{unit:05d}.parquet").exists()
        with open(log, "a") as file:
            file.write(json.dumps({"unit": unit, "pid": os.getpid(), "there": there}) + "\n")
        time.sleep(0.01)
        return [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in seeds]

    code = 1
    try:
        generate(PLAN, draw, folder)
        code = 0
    finally:
        os._exit(code)


def begun(log: Path) -> int:
    """Return how many units were begun so far."""
    return len(log.read_text().splitlines()) if log.exists() else 0


def trial(folder: Path, processes: int, kills: int, rng: random.Random) -> dict[str, object]:
    """Start processes, kill one of them at a random moment of the work, replace it, ...; let the last ones finish."""
    log, done = folder.with_suffix(".log"), 0
    running = [work(folder, log) for _ in range(processes)]
    for moment in sorted(rng.uniform(0, len(UNITS)) for _ in range(kills)):
        victim = running[rng.randrange(processes)]
        while begun(log) < int(moment) and not (folder / "manifest.json").exists():
            time.sleep(0.02)
        time.sleep(moment % 1 * UNIT_SECONDS)
        os.kill(victim, signal.SIGKILL)
        done += os.waitpid(victim, 0)[1] == signal.SIGKILL  # it may have finished before
        running[running.index(victim)] = work(folder, log)
    codes = [os.waitpid(child, 0)[1] for child in running]
    drawn = [json.loads(line) for line in log.read_text().splitlines()]
    return {"folder": str(folder), "processes": processes, "kills": done, "codes": codes, "drawn": drawn}


if __name__ == "__main__":
    root, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    trials = [trial(root / "whole", 1, 0, rng)]
    for processes in (1, 2):
        while sum(t["kills"] for t in trials if t["processes"] == processes) < int(sys.argv[3]):
            trials.append(trial(root / f"killed-{len(trials)}", processes, rng.randint(3, 7), rng))
    print(json.dumps(trials))

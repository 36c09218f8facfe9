"""Run by test_killed_runs: a process that publishes checkpoints as fast as it can, killed -9 at random moments.

It imports only what saving needs, once, and forks the ones that save and die. Each goes on from the newest checkpoint,
as a run does. After each kill every published checkpoint is verified, and its content compared with its step. It prints
what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from diffpref.training.checkpoints import (
    Checkpoint,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    remove_unfinished,
    save_checkpoint,
)

TRIALS, VERIFIED = 25, 110
SIZE = 50_000


def parts(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return a state that is known by its step."""
    filled = torch.full((SIZE,), float(step))
    return {"policy": {"w": filled, "v": filled[:7]}, "optimizer": {"0.exp_avg": -filled}}


def is_of(found: Checkpoint, step: int) -> bool:
    """Whether a checkpoint holds the state of a step."""
    wanted = [(part, name, tensor) for part, values in parts(step).items() for name, tensor in values.items()]
    same = all(torch.equal(found.part(part)[name], tensor) for part, name, tensor in wanted)
    return same and found.counters["half"] == step / 2


def save_for_ever(folder: Path, keep: int) -> None:
    remove_unfinished(folder)
    found = newest_checkpoint(folder)
    step = found.step if found else 0
    while True:
        step += 1
        save_checkpoint(folder, step, parts(step), {"half": step / 2}, keep)


def main(folder: Path, seed: int) -> None:
    """Kill so many writers."""
    draw, seen, leftovers, bad = random.Random(seed), set[int](), 0, []
    trial = 0
    while trial < TRIALS or len(seen) < VERIFIED:
        trial += 1
        keep = 3 if trial % 2 else 1000  # also while old ones are being removed
        if not (child := os.fork()):
            try:
                save_for_ever(folder, keep)
            finally:
                os._exit(70)
        time.sleep(draw.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        leftovers += len(list((folder / "checkpoints").glob(".tmp-*")))
        for path in list_checkpoints(folder):
            step = int(path.name[5:])
            if step in seen:
                continue
            try:
                found = open_checkpoint(path)
                if not is_of(found, step):
                    bad.append(f"{path.name}: other content")
            except Exception as error:
                bad.append(f"{path.name}: {error}")
            seen.add(step)
    newest = max(seen)
    shutil.rmtree(folder)
    print(json.dumps({"trials": trial, "verified": len(seen), "published": newest, "leftovers": leftovers, "bad": bad}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Trains by recipes in forks of one process that has imported everything, and ends them where a job says.

A launch of Python costs more than a small run. Run it with a JSON file, a list of lists of jobs::

    {"words": [recipe, "--seed", "1"], "log": file, "kill_at_batch": 17}
    {"words": [...], "log": file, "signal": 15, "after_lines": 3, "metrics": file}

``kill_at_batch`` is kill -9 when the so-many-th micro-batch of this process is asked for, so at a moment that is the
same each time and may lie in the middle of an update. ``signal`` is sent when the metrics have so many lines. It prints
the exit codes; a signal's are negative. Within a list jobs run one after another.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import diffusers
import torch

from diffpref.cli import main, train  # noqa: F401
from diffpref.evaluation.validation import ValidationPictures  # noqa: F401
from diffpref.training.batches import Batches
from diffpref.training.log import read_metrics
from diffpref.training.trainer import Trainer  # noqa: F401

_ = diffusers.StableDiffusionXLPipeline, diffusers.UNet2DConditionModel  # loads what the library loads late
PATIENCE = 300  # seconds


def work(job: dict[str, Any]) -> int:
    """Start a process that trains."""
    if child := os.fork():
        return child
    code = 70
    try:
        output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if "kill_at_batch" in job:
            kill_at(job["kill_at_batch"])
        code = main(["train", *job["words"]])
        sys.stdout.flush()
    finally:
        os._exit(code)


def kill_at(count: int) -> None:
    """Make this process kill itself when the ``count``-th micro-batch is asked for."""
    batch, asked = Batches.batch, 0

    def counted(self: Batches, items: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, items)

    Batches.batch = counted  # type: ignore[method-assign]


def run(job: dict[str, Any]) -> int:
    """Do a job to its end; return the exit code."""
    child = work(job)
    until = time.monotonic() + PATIENCE
    waiting = "signal" in job
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if waiting and len(read_metrics(Path(job["metrics"]))) >= job["after_lines"]:
            os.kill(child, job["signal"])
            waiting = False
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(Path(job["log"]).read_text())
        time.sleep(0.005)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([[run(job) for job in jobs] for jobs in json.loads(Path(sys.argv[1]).read_text())]))

"""The real command in a process of its own, killed in the middle and started again: the same bits as without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow

DIRECT = (sys.executable, "-m", "diffpref.train")
LAUNCHED = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "diffpref.train")
PATIENCE = 300  # seconds, on a machine busy with other things


def start(command: tuple[str, ...], recipe: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [*command, str(recipe)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the launcher and what it launched die together
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def kill_after(process: subprocess.Popen[str], metrics: Path, lines: int) -> int:
    """Kill -9 as soon as so many updates are logged; return how many there are then."""
    until = time.monotonic() + PATIENCE
    while len(read_metrics(metrics)) < lines:
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return len(read_metrics(metrics))


def exact(output: Path) -> list[dict[str, Any]]:
    """Return the metrics with floats in hex, without those of speed."""
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(output / "metrics.jsonl")
    ]


def recipe(keys: dict[str, Any], folder: Path, name: str) -> tuple[Path, Path]:
    path, output = folder / f"{name}.yaml", folder / name
    path.write_text(yaml.safe_dump({**keys, "output": str(output)}))
    return path, output


@pytest.mark.parametrize(
    ("adapter", "command"),
    [({"kind": "lora", "rank": 4, "alpha": 16.0}, DIRECT), ({"kind": "full"}, DIRECT), ({"kind": "lora"}, LAUNCHED)],
    ids=["lora", "full", "lora under accelerate launch"],
)
def test_resuming_after_kill_9_is_bit_identical(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any], command: tuple[str, ...]
) -> None:
    shape = {"steps": 150, "batch_size": 2, "accumulation": 2, "checkpoint_every": 20}
    keys = recipe_keys(adapter=adapter, training=shape, optim={"learning_rate": 1e-4, "schedule": "cosine"})
    straight, straight_output = recipe(keys, tmp_path, "straight")
    finish(start(command, straight))
    broken, output = recipe(keys, tmp_path, "broken")
    killed_at = [
        kill_after(start(command, broken), output / "metrics.jsonl", lines)
        for lines in (7, 55)  # before the first checkpoint, and between two later ones
    ]
    assert killed_at[0] < killed_at[1] < 150
    assert "resumed from" in finish(start(command, broken))
    assert len(exact(straight_output)) == 150 and exact(output) == exact(straight_output)
    first, second = (load_file(next(o.glob("[lm]o[rd]*/*.safetensors"))) for o in (straight_output, output))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert not list(output.rglob(".tmp-*"))


def test_the_same_seed_gives_the_same_numbers_in_another_process_and_another_seed_others(
    recipe_keys: Keys, tmp_path: Path
) -> None:
    keys = recipe_keys(training={"steps": 5, "batch_size": 2}, data__cache=None)
    outputs = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        path, output = recipe({**keys, "seed": seed}, tmp_path, name)
        finish(start(DIRECT, path))
        outputs.append(exact(output))
    assert outputs[0] == outputs[1] != outputs[2]

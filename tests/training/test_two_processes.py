"""When one of two processes meets a loss that is not finite, both stop."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from diffpref.config import build_recipe
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow


def run_two(keys: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(keys))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    command += ["-m", "diffpref.train", str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_loss_that_is_not_finite_on_one_process_stops_both(recipe_keys: Keys, tmp_path: Path) -> None:
    keys = recipe_keys(data__cache=str(tmp_path / "cache"), training={"steps": 2, "batch_size": 2})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    index, _ = trainer.batches.sampler.batch(0, 4)[3]  # the second process has the last two
    pair = trainer.batches.pairs[index]
    candidate = trainer.batches.records[pair.record_index].candidates[pair.chosen]
    mean = trainer.batches.cache.latents([candidate]).mean[0]
    for shard in (tmp_path / "cache").rglob("tensors.safetensors"):
        tensors = load_file(shard)
        save_file({k: t * math.nan if torch.equal(t, mean) else t for k, t in tensors.items()}, shard)
    keys["output"] = str(tmp_path / "two")
    started = time.monotonic()
    done = run_two(keys, tmp_path)
    assert done.returncode != 0 and time.monotonic() - started < 200
    shown = re.findall(r"update 1: the loss is not finite; nothing was changed\. Records: ([\w ]+)", done.stderr)
    # the launcher may end the second process before it has told its side
    assert shown and set(shown) <= {"on another process", pair.record_id}, done.stderr
    assert not (tmp_path / "two" / "checkpoints").exists() and not read_metrics(tmp_path / "two" / "metrics.jsonl")

"""HPS v2.1 at its real size, with random weights: written as it is published, loaded strictly, one picture scored."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FILE = "HPS_v2.1_compressed.pt"
PARAMETERS, ENTRIES = 986_109_441, 686
GIB = 1 << 30

WRITE = """
import sys

import open_clip
import torch
from open_clip.model import CLIP

with torch.device("meta"):
    shapes = {k: v.shape for k, v in CLIP(**open_clip.get_model_config("ViT-H-14")).state_dict().items()}
numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
state = {}
for name, shape in shapes.items():
    times = -(-shape.numel() // numbers.numel())
    state[name] = numbers.repeat(times)[: shape.numel()].reshape(shape).clone()
    if ".ln_" in f".{name}" and name.endswith("weight"):
        state[name] += 1
state["logit_scale"] = torch.tensor(4.6052)
torch.save({"epoch": 10, "state_dict": state}, sys.argv[1])
"""

SCORE = """
import json
import resource
import sys
import time

import numpy as np
import torch

from diffpref import rewards

torch.set_num_threads(1)
start = time.monotonic()
reward = rewards.load("hps_v21", sys.argv[1], allow_pickle=True)
loaded = time.monotonic() - start
picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
(score,) = reward.score([picture], ["a photo of a cat"]).tolist()
told = {
    "score": score,
    "pair_scale": reward.info.pair_scale,
    "load_seconds": loaded,
    "seconds": time.monotonic() - start,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
print(json.dumps(told))
"""


def run(code: str, *arguments: str, cache: Path) -> str:
    environment = {**os.environ, "DIFFPREF_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_published_checkpoint_at_full_size(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 10 * GIB:
        pytest.skip("needs 10 GiB of disk")
    file, cache = tmp_path / FILE, tmp_path / "cache"
    try:
        run(WRITE, str(file), cache=cache)
        size = file.stat().st_size
        told = json.loads(run(SCORE, str(tmp_path), cache=cache).splitlines()[-1])
        (converted,) = (cache / "converted").iterdir()
        with open(converted, "rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    finally:
        file.unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)
    peak = told["peak_bytes"]
    print(
        f"HPS v2.1 at full size: {size / GIB:.2f} GiB on disk, peak memory {peak / GIB:.2f} GiB, loaded in"
        f" {told['load_seconds']:.0f} s, a picture scored {told['score']:.6f} after {told['seconds']:.0f} s"
    )
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    assert (sum(map(math.prod, shapes)), len(shapes)) == (PARAMETERS, ENTRIES)
    assert -1 <= told["score"] <= 1 and told["pair_scale"] == pytest.approx(100, rel=1e-3)
    assert peak < size + 2 * GIB  # one copy of the weights, and what libraries and a picture need

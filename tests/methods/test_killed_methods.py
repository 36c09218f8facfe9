"""Methods that invert, of lists, captions and frames, killed -9 in the middle of an update, go on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from method_cases import cases
from safetensors.torch import load_file
from scored_clips import FRAMES, write_scored_clips

from diffpref.models import registry as families
from diffpref.training.checkpoints import list_checkpoints, open_checkpoint
from diffpref.training.log import read_metrics

pytestmark = pytest.mark.slow

FAMILY = {
    "ddim_inpo": "sd",
    "smpo_diffusion": "sd",
    "inversion_dpo": "sd",
    "rank_dpo": "sd",
    "dcpo": "sd",
    "dense_dpo": "unet3d",
}
CASES = {name: case for name, case in cases().items() if name in FAMILY}
DRIVER = Path(__file__).parents[1] / "training" / "forked_runs.py"
SHAPE = {"steps": 4, "batch_size": 2, "accumulation": 2, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def killed(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run each method straight, and once killed in the middle of its third update: ``<method>-<straight|killed>``."""
    folder = tmp_path_factory.mktemp("killed")
    for family in ("sd", "unet3d"):
        families.get(family).tiny().pipeline().save_pretrained(folder / family)
    clips = write_scored_clips(folder / "clips")
    jobs = []
    for name, case in CASES.items():
        family = FAMILY[name]
        data = {"source": str(scored_store)} if family == "sd" else {"source": str(clips), "num_frames": FRAMES}
        keys: dict[str, Any] = {
            "model": {"family": family, "path": str(folder / family)},
            "data": {**data, "score": "oracle", "cache": str(folder / f"{family}-cache")},
            "method": name,
            "optim": {"learning_rate": 1e-3},
            "training": SHAPE,
        }
        for path, value in case.changes.items():
            section, _, part = path.partition("__")
            keys[section] = {**keys.get(section, {}), part: value} if part else value
        (folder / f"{name}-data").mkdir()
        keys = {**keys, "output": str(folder / name)}
        keys = keys if case.prepare is None else case.prepare(folder / f"{name}-data", keys)
        written = []
        for kind in ("killed", "straight"):
            written.append(folder / f"{name}-{kind}.yaml")
            written[-1].write_text(yaml.safe_dump({**keys, "output": str(folder / f"{name}-{kind}")}))
        log = str(folder / f"{name}.log")
        broken, straight = ({"words": [str(path)], "log": log} for path in written)
        jobs.append([{**broken, "kill_at_batch": 6}, broken, straight])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(DRIVER), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    codes = dict(zip(CASES, json.loads(done.stdout), strict=True))
    assert codes == {name: [-signal.SIGKILL, 0, 0] for name in CASES}
    return folder


def exact(output: Path) -> list[dict[str, Any]]:
    """Return the metrics with floats in hex, without those of speed."""
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(output / "metrics.jsonl")
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_method_resumes_after_kill_9_to_the_bit(killed: Path, name: str) -> None:
    straight, broken = (killed / f"{name}-{kind}" for kind in ("straight", "killed"))
    assert [row["step"] for row in exact(straight)] == [1, 2, 3, 4] and exact(broken) == exact(straight)
    assert (killed / f"{name}.log").read_text().count("resumed from") == 1
    found = [open_checkpoint(list_checkpoints(output)[-1]) for output in (straight, broken)]
    assert found[0].shapes.keys() == found[1].shapes.keys() >= {"policy", "optimizer"}
    for part in found[0].shapes:
        one, other = (checkpoint.part(part) for checkpoint in found)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), part
    first, second = (load_file(next((output / "lora").glob("*.safetensors"))) for output in (straight, broken))
    assert all(torch.equal(first[key], second[key]) for key in first)

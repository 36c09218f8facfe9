"""Methods that draw samples, under two processes and under kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from diffpref.config import build_recipe
from diffpref.models import registry as families
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints, open_checkpoint
from diffpref.training.log import read_metrics

pytestmark = pytest.mark.slow

JPEG = {"jpeg": {"output": "incompressibility"}}
NFT = {"rewards": [JPEG], "group_size": 4, "num_inference_steps": 2, "collect_every": 4, "passes": 2}
METHODS: dict[str, dict[str, Any]] = {
    "seppo": {"method": {"seppo": {"snapshot_every": 2, "num_inference_steps": 2, "guidance_scale": 2.0}}},
    "diffusion_nft": {"method": {"diffusion_nft": NFT}},
    "diffusion_kto": {"method": "diffusion_kto"},
}
BETA = {"seppo": {"seppo": {"beta": 20.0}}, "diffusion_kto": {"diffusion_kto": {"beta": 20.0}}}
"""Small, so that rounding stays rounding."""
Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def keys(tiny_sdxl: Path, scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Make the keys of a recipe of eight records an update."""
    folder = tmp_path_factory.mktemp("runs")
    families.get("sd3").tiny().pipeline().save_pretrained(folder / "sd3")

    def make(method: str, name: str, size: int, accumulation: int, **changes: Any) -> dict[str, Any]:
        made = {
            "output": str(folder / f"{method}-{name}"),
            "model": {"family": "sdxl", "path": str(tiny_sdxl)},
            "data": {"source": str(scored_store), "score": "oracle", "cache": str(folder / "cache")},
            "optim": {"learning_rate": 1e-4},
            "training": {"steps": 6, "batch_size": size, "accumulation": accumulation},
            **METHODS[method],
        }
        if method == "diffusion_nft":
            made["model"] = {"family": "sd3", "path": str(folder / "sd3"), "max_sequence_length": 8}
            made["data"] = {"source": "shapes:seen:12", "cache": str(folder / "cache-sd3")}
        else:
            made["objective"] = BETA[method]
        return {**made, **changes}

    return make


def test_every_process_makes_the_same_calls_and_together_they_are_one(
    keys: Keys, run_together: Callable[..., Any]
) -> None:
    cases = [("seppo", "fsdp2"), ("seppo", "ddp"), ("diffusion_nft", "ddp")]
    found = run_together([("calls", {"keys": keys(method, way, 2, 2)}, way) for method, way in cases])
    for number, (method, way) in enumerate(cases):
        first, second = (process[number] for process in found)
        assert "error" not in first, first.get("traceback")
        assert first["value"] == second["value"] and len(first["value"]) > 6, (method, way)
        whole = Trainer(build_recipe(keys(method, f"{way}-one", 8, 1)))
        whole.fit()
        ours, theirs = (
            read_metrics(Path(keys(method, name, 2, 2)["output"]) / "metrics.jsonl") for name in (way, f"{way}-one")
        )
        assert len(ours) == len(theirs) == 6
        for row, wanted in zip(ours, theirs, strict=True):
            assert row.keys() == wanted.keys()
            for name in {name for name in wanted if not name.startswith("perf/")}:
                assert row[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-4), (method, row["step"], name)


@pytest.mark.parametrize("method", METHODS)
def test_row_01_a_run_that_is_killed_goes_on_bit_by_bit(keys: Keys, tmp_path: Path, method: str) -> None:
    """Killed in the middle of an update, before the first checkpoint or within a collection, and once more later."""
    jobs, outputs = [], []
    for name, kills in (("straight", ()), ("killed", (4, 9))):
        made = keys(method, name, 4, 2)
        made["training"] = {**made["training"], "checkpoint_every": 1}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(made))
        job = {"words": [str(path)], "log": str(tmp_path / f"{name}.log")}
        jobs.append([*({**job, "kill_at_batch": batch} for batch in kills), job])
        outputs.append(Path(made["output"]))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).with_name("forked_runs.py")), str(tmp_path / "jobs.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout) == [[0], [-signal.SIGKILL, -signal.SIGKILL, 0]]
    assert "resumed from" in (tmp_path / "killed.log").read_text()
    rows = [
        [
            {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
            for row in read_metrics(output / "metrics.jsonl")
        ]
        for output in outputs
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    first, second = (open_checkpoint(list_checkpoints(output)[-1]) for output in outputs)
    assert first.shapes.keys() == second.shapes.keys() >= {"policy", "optimizer"}
    assert ("collected" in first) == (method == "diffusion_nft")
    for part in first.shapes:
        one, other = first.part(part), second.part(part)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), part

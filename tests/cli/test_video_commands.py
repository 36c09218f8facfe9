"""The commands from nothing to a verdict on a tiny model of videos: several processes draw, one trains, all is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffpref.cli import main
from diffpref.config import dump_yaml
from diffpref.data import load_prompts, read_store
from diffpref.data.clips import read_clip
from diffpref.models import registry
from diffpref.training.log import read_metrics

SIZE = {"resolution": 32, "num_frames": 4}
DRAWN = {"num_inference_steps": 1, "batch_size": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("model")
    registry.get("unet3d").tiny().pipeline().save_pretrained(folder)
    return {"family": "unet3d", "path": str(folder)}


def write(path: Path, **keys: Any) -> str:
    path.write_text(dump_yaml(keys), encoding="utf-8")
    return str(path)


def generation(folder: Path, model: dict[str, str], output: str) -> str:
    told = {"prompts": "shapes_moving:seen:4", "candidates": 2, "guidance_scales": [2.0], "unit_size": 1}
    rewards = ["motion", "oracle"]
    path = folder / f"{output}.yaml"
    return write(path, output=str(folder / output), model=model, rewards=rewards, fps=4, **told, **DRAWN, **SIZE)


def training(folder: Path, model: dict[str, str]) -> str:
    validation = {"every": 2, "prompts": load_prompts("shapes_moving:unseen:2"), "seeds": [0, 1], **DRAWN}
    del validation["batch_size"]
    return write(
        folder / "train.yaml",
        output=str(folder / "run"),
        model=model,
        data={"source": str(folder / "data"), "score": "motion", "cache": str(folder / "cache"), **SIZE},
        method="diffusion_dpo",
        optim={"learning_rate": 1e-2},
        training={"steps": 2, "batch_size": 2},
        validation={**validation, "rewards": ["oracle", "flicker"]},
    )


def start(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "diffpref", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()[-2000:]
    return out.decode()


@pytest.mark.slow
def test_from_prompts_to_a_verdict_on_clips(model: dict[str, str], tmp_path: Path) -> None:
    recipe = generation(tmp_path, model, "data")
    other = start("generate", recipe)
    assert main(["generate", recipe]) == 0  # they share the work
    ended(other)
    assert main(["generate", generation(tmp_path, model, "alone")]) == 0
    together, alone = read_store(tmp_path / "data"), read_store(tmp_path / "alone")
    assert [record.candidates for record in together] == [record.candidates for record in alone]
    clip = read_clip(together[0].candidates[0])
    assert clip.frames.shape == (4, 32, 32, 3) and clip.fps == 4

    ended(start("train", training(tmp_path, model)))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert 0 <= lines[-1]["eval/oracle"] <= 5 and 0 <= lines[-1]["eval/flicker"] <= 1
    with Image.open(tmp_path / "run" / "samples" / "step-000002.gif") as moving:
        assert moving.n_frames == 4  # type: ignore[attr-defined]
    with Image.open(tmp_path / "run" / "samples" / "step-000002.png") as strips:
        assert strips.width > 4 * 88 and strips.height > 4 * 88  # two seeds of two prompts

    words = ["--prompts", "shapes_moving:unseen:3", "--rewards", "oracle", "motion", "--guidance_scale", "2"]
    told = json.loads(ended(start("evaluate", str(tmp_path / "run"), *words, "--num_inference_steps", "1", "--json")))
    assert (told["num_pairs"], told["setting"]["sampler"]["num_frames"]) == (3, 4)
    assert (tmp_path / "run" / "evaluation" / "grid.gif").is_file()
    entry = next(one for one in told["table"]["entries"] if (one["contender"], one["measure"]) == ("run", "motion"))
    assert entry["win"]["low"] <= entry["win"]["rate"] <= entry["win"]["high"]
    assert entry["mean_difference"]["low"] <= entry["mean_difference"]["high"] != 0


@pytest.mark.slow
def test_loops_and_rounds_draw_judge_and_learn_from_clips(
    model: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"data": SIZE, "optim": {"learning_rate": 1e-3}, "training": {"steps": 1, "batch_size": 2}}
    prompts = {"prompts": "shapes_moving:seen:4"}
    sampling = {**DRAWN, **SIZE, "guidance_scale": 1.0}
    loop = {"loop": "iterative_dpo", "rounds": 2, "judge": "motion", "sampling": sampling, "training": run, **prompts}
    assert main(["loop", write(tmp_path / "loop.yaml", output=str(tmp_path / "loop"), model=model, **loop)]) == 0
    for number in ("000", "001"):
        store = read_store(tmp_path / "loop" / "rounds" / number / "data")
        assert all(len(read_clip(c).frames) == 4 for record in store for c in record.candidates)
    assert (tmp_path / "loop" / "rounds" / "001" / "run" / "lora").is_dir()

    drawn = {**prompts, "candidates": 2, "guidance_scales": [1.0], "rewards": ["motion", "oracle"], **DRAWN, **SIZE}
    learnt = {**run, "method": "diffusion_dpo", "data": {"score": "motion", **SIZE}}
    judged = {"prompts": "shapes_moving:unseen:3", "judges": ["oracle", "flicker"]}
    path = write(tmp_path / "round.yaml", model=model, generation=drawn, training=learnt, evaluation=judged)
    assert main(["demo", "--recipe", path, "--output", str(tmp_path / "round")]) == 0
    assert "of the aligned model's clips" in capsys.readouterr().out
    assert {"grid.png", "grid.gif", "report.html"} <= {file.name for file in (tmp_path / "round").iterdir()}
    judged["judges"] = ["jpeg"]
    path = write(tmp_path / "wrong.yaml", model=model, generation=drawn, training=learnt, evaluation=judged)
    assert main(["demo", "--recipe", path, "--output", str(tmp_path / "wrong")]) == 2
    assert "reward 'jpeg' scores pictures, and clips are drawn" in capsys.readouterr().err
    assert not (tmp_path / "wrong" / "data").exists()

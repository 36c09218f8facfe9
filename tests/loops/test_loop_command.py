"""The command, its refusals before anything is loaded, and a loop that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.cli import main
from diffpref.config import dump_yaml, recipe_names
from diffpref.core.errors import CheckpointError, ConfigError, DataError
from diffpref.loops import check_loop, load_loop, run_loop
from diffpref.loops.progress import Progress
from diffpref.loops.stage import Iterate

from .text_loops import folder, lora, recipe

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "loop: unknown loop 'iterative_dop'; did you mean 'iterative_dpo'": ("iterative_dop", {}),
    "loop.sppo.candidats: unknown key; did you mean 'candidates'": ("sppo", {"loop": {"candidats": 3}}),
    "loop: 'spin' takes data alone; given: prompts": ("spin", {}),
    "loop: 'spa' takes prompts and data; given: prompts": ("spa", {}),
    "loop: 'sppo' takes prompts alone; given: neither": ("sppo", {"prompts": None}),
    "judge: 'sppo' asks a judge": ("sppo", {"judge": None}),
    "sampling.temprature: unknown key; did you mean 'temperature'": ("sppo", {"sampling": {"temprature": 1}}),
    "sampling.top_p: must be > 0": ("sppo", {"sampling": {"top_p": 2.0}}),
    "training.data.source: is decided by the loop": ("sppo", {"training": {"data": {"source": "x"}}}),
    "training.training.steps: is decided by the loop": ("oaif", {}),
    "training.optim.learning_rate: must be > 0": ("sppo", {"training": {"optim": {"learning_rate": -1}}}),
    "rounds: egpo takes two rounds an iteration": ("egpo", {"rounds": 3}),
}


@pytest.mark.parametrize("expected", WRONG)
def test_a_mistake_is_told_before_anything_is_loaded(expected: str, tmp_path: Path) -> None:
    name, changes = WRONG[expected]
    with pytest.raises(ConfigError) as caught:
        check_loop(recipe(tmp_path, name, **changes))
    assert str(caught.value).startswith(expected)


def test_whole_networks_of_denoisers_are_refused_and_those_of_language_models_have_an_anchor(tmp_path: Path) -> None:
    shapes = {"model": {"family": "sdxl", "path": "bundled:shapes-sdxl"}, "prompts": "shapes:seen:8", "sampling": {}}
    whole = {"adapter": {"kind": "full"}}
    with pytest.raises(ConfigError, match=r"training\.adapter\.kind: .* give lora, got full"):
        check_loop(recipe(tmp_path, "iterative_dpo", training=whole, **shapes))
    check_loop(recipe(tmp_path, "iterative_dpo", training=whole, loop={"anchor": "initial"}))


def test_prompts_that_do_not_suffice_for_the_rounds_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 prompts or records cannot be divided among 2 rounds"):
        run_loop(recipe(tmp_path, "iterative_dpo", prompts="words:unseen:1"))


def test_bundled_loops_are_sound() -> None:
    names = [name for name in recipe_names() if name.startswith("loops/")]
    assert len(names) >= 10
    for name in names:
        check_loop(load_loop(name, {"output": "runs/x"}))


def test_the_command_runs_a_loop_and_says_where_the_policy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(dump_yaml(recipe(tmp_path / "a", "iterative_dpo").model_dump(mode="json")), encoding="utf-8")
    words = ["loop", str(path), "--rounds", "1", "--prompts", "words:unseen:12", "--output", str(tmp_path / "b")]
    assert main([*words, "--set", "training.training.steps=1", "training.optim.learning_rate=0.01"]) == 0
    told = capsys.readouterr().out
    assert "12 records teach, mean score 0." in told and str(folder(tmp_path / "b", 0) / "run" / "lora") in told
    assert main([*words, "--set", "training.training.steps=1", "training.optim.learning_rate=0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"][0]["train"]["step"] == 1
    assert main([*words, "--set", "training.training.steps"]) == 2
    assert "expected PATH=VALUE" in capsys.readouterr().err
    assert main(["list", "loops"]) == 0
    assert "egpo" in capsys.readouterr().out


def test_a_damaged_or_strange_loop_file_is_told(tmp_path: Path) -> None:
    progress = Progress(tmp_path, "sppo", 3)
    progress.begin("draw")
    progress.finish(Iterate(lora=str(tmp_path / "a")), Iterate(lora="/elsewhere/b"), {"records": 1})
    again = Progress.open(tmp_path, "sppo", 3)
    assert again.stage_of(1).starts == (Iterate(), Iterate(lora="/elsewhere/b"))
    assert again.stage_of(1).results == (Iterate(lora=str(tmp_path / "a")),)
    with pytest.raises(CheckpointError, match="loop 'sppo', expected"):
        Progress.open(tmp_path, "dno", 3)
    (tmp_path / "loop.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        Progress.open(tmp_path, "sppo", 3)


@pytest.mark.slow
def test_a_loop_that_is_killed_while_it_draws_and_while_it_trains_ends_as_one_that_is_not(tmp_path: Path) -> None:
    changes = {"prompts": "words:unseen:40", "unit_size": 2}
    training = {"adapter": {"rank": 4}, "training": {"batch_size": 2, "steps": 6, "checkpoint_every": 2}}
    run_loop(recipe(tmp_path / "whole", "iterative_dpo", training=training, **changes))
    killed = recipe(tmp_path / "killed", "iterative_dpo", training=training, **changes)
    path = tmp_path / "loop.yaml"
    path.write_text(dump_yaml(killed.model_dump(mode="json")), encoding="utf-8")
    first, second = folder(tmp_path / "killed", 0), folder(tmp_path / "killed", 1)
    for place, pattern in ((first, "run/checkpoints/step-000002"), (second, "data/part-00003.parquet")):
        process = subprocess.Popen(
            [sys.executable, "-m", "diffpref", "loop", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        while not list(place.glob(pattern)):
            assert process.poll() is None, f"it ended before {pattern} was there"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (second / "data" / "manifest.json").exists()  # it was killed in the middle of its data
    run_loop(killed)
    for number in (0, 1):
        for name, tensor in lora(tmp_path / "whole", number).items():
            assert torch.equal(tensor, lora(tmp_path / "killed", number)[name]), f"round {number}: {name}"

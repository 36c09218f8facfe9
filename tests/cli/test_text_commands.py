"""Language models from the command line: train, export, and what the result says in plain transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.cli import main
from diffpref.models import registry as families


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = families.get("causal_lm").tiny()
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"prompt": f"{n % 5}? ", "chosen": "yes " * (1 + n % 2), "rejected": "no, no"} for n in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(model: Path, texts: Path, output: Path, steps: int = 3) -> list[str]:
    given = {"model.path": model, "data.source": texts, "output": output, "training.steps": steps}
    given |= {"training.batch_size": 4, "optim.warmup_steps": 0, "optim.learning_rate": 1e-2}
    return ["train", "text/dpo", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def test_training_from_the_recipe_and_exporting_a_whole_model(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = tmp_path / "run"
    assert main(command(model, texts, run)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"trained 3 updates; the result is in {run / 'lora'}"
    assert main(["export", str(run), "--format", "merged", "--output", str(tmp_path / "merged")]) == 0
    base = AutoModelForCausalLM.from_pretrained(model)
    adapted: Any = PeftModel.from_pretrained(base, run / "lora")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("yes")["input_ids"]
    ids = torch.arange(3, 30).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=0, atol=1e-5)
    capsys.readouterr()
    assert main(["export", str(run), "--format", "kohya", "--output", str(tmp_path / "x.safetensors")]) == 2
    assert "is for denoisers" in capsys.readouterr().err
    assert main(["explain", str(run), "--step", "1"]) == 2
    assert "this run trains a language model" in capsys.readouterr().err
    config = str(run / "config.yaml")
    assert main(["cache", str(texts), "--recipe", config, "--output", str(tmp_path / "cache")]) == 2
    assert "nothing to cache" in capsys.readouterr().err
    filling = ["cache", str(texts), "--recipe", config, "--output", str(tmp_path / "cache"), "--bank", "--slots", "1"]
    assert main(filling) == 0
    assert len(list((tmp_path / "cache" / "bank").glob("*/*.safetensors"))) >= 1


@pytest.mark.slow
def test_the_command_trains_a_language_model_in_a_process_of_its_own(model: Path, texts: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program = [sys.executable, "-m", "diffpref", *command(model, texts, tmp_path / "run")]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained 3 updates" in done.stdout
    program = [sys.executable, "-m", "diffpref", *command(model, texts, tmp_path / "run", steps=4)]
    again = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "trained" in again.stdout, again.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.slow
def test_two_processes_are_one(model: Path, texts: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "diffpref.train"]
    shared = [word if word != "4" else "2" for word in command(model, texts, tmp_path / "two")[1:]]
    done = subprocess.run([*launch, *shared], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert main(command(model, texts, tmp_path / "one")) == 0
    found = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    ]
    assert len(found[0]) == len(found[1]) == 3
    for two, one in zip(*found, strict=True):
        for name in ("loss", "grad_norm", "logps/chosen", "rewards/margins"):
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-6), name

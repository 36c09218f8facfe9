"""``diffpref train`` as a user types it: what it leaves behind, and what it says of mistakes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from diffpref.cli import main
from diffpref.config import build_recipe, load_recipe
from diffpref.data import decode_image, read_store
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe_file(recipe_keys: Keys, tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe_keys(**changes)))
        return str(path)

    return write


def test_a_run_leaves_a_complete_folder(
    recipe_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = {"prompts": ["a red circle", "a blue square"], "every": 2, "seeds": [0, 1, 2], "num_inference_steps": 2}
    path = recipe_file(validation=prompts, training={"steps": 4, "batch_size": 2, "checkpoint_every": 2})
    assert main(["train", path, "--optim.learning_rate", "1e-3"]) == 0
    output = tmp_path / "run"
    *table, last = capsys.readouterr().out.splitlines()
    assert last == f"trained 4 updates; the result is in {output / 'lora'}"
    assert table[0].split() == ["begin", "end"] and table[1].startswith("loss ")
    rows = read_metrics(output / "metrics.jsonl")
    assert table[1].split()[-1] == f"{sum(row['loss'] for row in rows) / 4:.4g}"
    assert sorted(p.name for p in output.iterdir()) == [
        "README.md",
        "checkpoints",
        "config.yaml",
        "lora",
        "metrics.jsonl",
        "samples",
    ]
    assert load_recipe(output / "config.yaml").optim.learning_rate == 1e-3
    assert [row["step"] for row in read_metrics(output / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [p.name for p in sorted((output / "checkpoints").iterdir())] == ["step-000002", "step-000004"]
    pictures = sorted((output / "samples").iterdir())
    assert [p.name for p in pictures] == ["step-000002.png", "step-000004.png"]
    first, second = (Image.open(p) for p in pictures)
    assert first.size == second.size and min(first.size) > 300 and first.tobytes() != second.tobytes()
    card = (output / "README.md").read_text()
    assert "pipe.load_lora_weights(" in card and "arxiv.org/abs/2311.12908" in card
    assert not list(output.rglob("*.pt")) and not list(output.rglob("*.bin")) and not list(output.rglob("*.pkl"))


@pytest.mark.parametrize(
    "adapter", [{"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"}], ids=["lora", "full"]
)
def test_plain_diffusers_loads_what_was_trained(
    recipe_file: Callable[..., str], tiny_sdxl: Path, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    from diffpref.training import Trainer

    path = recipe_file(adapter=adapter, optim={"learning_rate": 1e-2})
    assert main(["train", path]) == 0
    base = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    if adapter["kind"] == "lora":
        pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
        pipe.load_lora_weights(tmp_path / "run" / "lora")
    else:
        unet = UNet2DConditionModel.from_pretrained(tmp_path / "run" / "model")
        pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, unet=unet)
    trainer = Trainer(load_recipe(path))
    trainer.setup()
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0), (1, 0)]), trainer.updater.context)
    ours = trainer.roles["policy"](rows)["prediction"]
    with torch.no_grad():
        theirs, before = (trainer.family.forward(p.unet, rows.inputs, rows.conditioning) for p in (pipe, base))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    assert (theirs - before).abs().max() > 1e-3


def test_the_flags_of_the_diffusers_scripts_work(recipe_keys: Keys, tmp_path: Path) -> None:
    keys = recipe_keys()
    words = f"--pretrained_model_name_or_path {keys['model']['path']} --output_dir {tmp_path / 'run'} --beta_dpo 500"
    words += f" --data.source {keys['data']['source']} --data.score oracle --max_train_steps 2 --train_batch_size 2"
    words += " --learning_rate 1e-4 --rank 2 --model.family sdxl --method diffusion_dpo --lr_warmup_steps 1"
    assert main(["train", *words.split()]) == 0
    recipe = load_recipe(tmp_path / "run" / "config.yaml")
    assert recipe.objective is not None and recipe.objective[0].options == {"beta": 500}
    weights = load_file(tmp_path / "run" / "lora" / "pytorch_lora_weights.safetensors")
    assert {min(t.shape) for t in weights.values()} == {2}


# ---------------------------------------------------------------- mistakes


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Run the command, expect exit code 2, and return what it says, a line each."""
    capsys.readouterr()
    assert main(["train", *words]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("data: ")]  # what it did before
    assert said.out == "" and lines and all(line.startswith("diffpref: ") and len(line) < 420 for line in lines)
    return [line.removeprefix("diffpref: ") for line in lines]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sede": 1}, "sede: unknown key; did you mean 'seed'?"),
        ({"optim__learning_rat": 1.0}, "optim.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ({"training__steps": "many"}, "training.steps: must be a whole number, got 'many'"),
        ({"training__batch_size": 2.0}, "training.batch_size: must be a whole number, got 2.0"),
        ({"optim__learning_rate": True}, "optim.learning_rate: must be a number, got True"),
        ({"method": "difusion_dpo"}, "method: unknown method 'difusion_dpo'; did you mean 'diffusion_dpo'?"),
        ({"objective": "nlll"}, "objective[0]: unknown objective 'nlll'; did you mean 'nll'?"),
        ({"objective": {"dpo": {"beat": 1}}}, "objective[0].dpo.beat: unknown option; did you mean 'beta'?"),
        ({"method": "sft", "objective": "dpo"}, "objective: needs rejected samples; method 'sft' prepares chosen"),
        ({"model__family": "sd"}, "model.family: 'sd' does not fit "),
        ({"model__path": "/nowhere/model"}, "model.path: /nowhere/model is neither a folder nor a hub id"),
        ({"model__path": "bundled:shapes-sdx"}, "unknown bundled model 'shapes-sdx'"),
        ({"data__source": "/nowhere/data"}, "/nowhere/data: no such file or folder"),
        ({"data__score": "oracel"}, "16 records give no pair: no candidate has a score 'oracel'"),
        ({"data__score": None}, "16 records give no pair: of 0 judgements none"),
        ({"training__batch_size": 64}, "16 pairs are fewer than the 64 of one update"),
        ({"adapter": {"targets": ["to_x"]}}, "adapter.targets: "),
    ],
)
def test_a_mistake_is_one_clear_line(
    recipe_file: Callable[..., str], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], line: str
) -> None:
    (told,) = complaint(capsys, recipe_file(**changes))
    assert told.startswith(line)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_row_26_empty_data_stop_before_a_model_is_loaded(
    recipe_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "none.jsonl").write_text(content)
    (told,) = complaint(capsys, recipe_file(data__source=str(tmp_path / "none.jsonl"), model__path="/nowhere"))
    assert told == f"{tmp_path}/none.jsonl: holds no rows"


def test_a_key_given_twice_names_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\noutput: x\nseed: 2\n")
    assert complaint(capsys, str(path)) == [f"{path}, line 3: key 'seed' is given twice, first on line 1"]


def test_a_folder_that_is_not_a_model_says_what_it_holds(
    recipe_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    (told,) = complaint(capsys, recipe_file(model__path=str(tmp_path / "notes")))
    assert "has no model_index.json (it holds todo.txt); expected a diffusers pipeline folder" in told


def test_pickled_weights_alone_are_refused_with_the_key_that_allows_them(
    recipe_file: Callable[..., str], tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "pickled"
    shutil.copytree(tiny_sdxl, model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    (told,) = complaint(capsys, recipe_file(model__path=str(model)))
    alone = [sys.executable, "-m", "diffpref.train", recipe_file(model__path=str(model))]
    done = subprocess.run(alone, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[1:] == [f"diffpref: {told}"]  # after "data: ..."
    assert "holds only pickled weights in 'unet'; set model.allow_pickle to load them" in told
    assert main(["train", recipe_file(model__path=str(model), model__allow_pickle=True)]) == 0


def plain_table(folder: Path, count: int, store: Path, columns: dict[str, str]) -> Path:
    """Write a JSONL table of chosen and rejected pictures as files."""
    record = read_store(store)[0]
    for side, candidate in zip(("chosen", "rejected"), record.candidates, strict=False):
        decode_image(candidate.bytes).save(folder / f"{side}.png")
    row = {columns["prompt"]: record.prompt, columns["chosen"]: "chosen.png", columns["rejected"]: "rejected.png"}
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(count)))
    return path


NAMES = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


def test_a_missing_column_is_named_with_what_is_there(
    recipe_file: Callable[..., str], scored_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = plain_table(tmp_path, 4, scored_store, {**NAMES, "rejected": "loser"})
    (told,) = complaint(capsys, recipe_file(data={"source": str(table)}))
    assert "no column rejected; needed are prompt (text), chosen and rejected" in told
    assert told.endswith("found: chosen, loser, prompt")


def test_one_unreadable_image_in_a_hundred_is_set_aside_and_more_stop_the_run(
    recipe_file: Callable[..., str], scored_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = plain_table(tmp_path, 99, scored_store, NAMES)
    (tmp_path / "torn.png").write_bytes((tmp_path / "chosen.png").read_bytes()[:60])
    torn = json.dumps({"prompt": "a red circle", "chosen": "torn.png", "rejected": "rejected.png"}) + "\n"
    whole = table.read_text()
    table.write_text(whole + torn)
    path = recipe_file(data={"source": str(table)}, training__steps=1)
    assert main(["train", path]) == 0
    (entry,) = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert entry["id"] == "00000099" and "torn.png: cannot be decoded" in entry["reason"]
    shutil.rmtree(tmp_path / "run")
    table.write_text(whole + torn + torn)
    told, *reasons = complaint(capsys, path)
    assert told.startswith(
        "2 of 101 records are unusable, more than the 1.0% allowed (data.max_unusable); all are listed"
    )
    assert len(reasons) == 2 and all("torn.png: cannot be decoded" in reason for reason in reasons)


def test_other_settings_in_the_same_folder_are_refused_with_a_diff(
    recipe_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", recipe_file()]) == 0
    told = complaint(capsys, recipe_file(), "--optim.learning_rate", "3e-4", "--seed", "5")
    assert told[0].endswith("holds a run with other settings; choose another folder")
    assert told[1:] == ["seed: 0 -> 5", "optim.learning_rate: 0.0001 -> 0.0003"]
    (told,) = complaint(capsys, recipe_file(), "--training.resume", "false")
    assert told.startswith("training.resume: is false, but ")


def test_half_precision_and_full_training_are_said_in_the_saved_config(recipe_keys: Keys, tmp_path: Path) -> None:
    keys = recipe_keys(model__precision="bf16", adapter={"kind": "full"})
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(keys))
    assert main(["train", str(tmp_path / "r.yaml"), "--training.steps", "1"]) == 0
    saved = load_recipe(tmp_path / "run" / "config.yaml")
    assert saved == build_recipe(keys, {"training.steps": 1, "training.records_per_update": 2})

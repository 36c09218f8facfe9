"""An update done again has the bits of the log, shows what it was made of, and leaves the run as it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.cli import main
from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Context
from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.randomness import Random
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.models import registry as families
from diffpref.plotting.step_grid import step_grid
from diffpref.training import Trainer
from diffpref.training.explain import _pictures, explain_step
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
GROUPS = ("chosen", "rejected")
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return path -> time of change and content of every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_a_step_done_again_has_the_bits_of_the_log(recipe_keys: Keys, adapter: dict[str, Any], tmp_path: Path) -> None:
    shape = {"steps": 5, "batch_size": 2, "accumulation": 2, "checkpoint_every": 2, "keep": 3}
    keys = recipe_keys(
        adapter=adapter,
        training=shape,
        training__ema={"decay": 0.9},
        method={"diffusion_dpo": {"empty_prompt_prob": 0.5}},
    )
    del keys["data"]["cache"]  # it lies in the run, which must not be touched
    folder = Trainer(build_recipe(keys)).fit()
    before, rows = content(folder), {row["step"]: row for row in read_metrics(folder / "metrics.jsonl")}
    for step, start in ((1, 0), (4, 2), (5, 4)):
        view = explain_step(folder, step)
        assert (view.step, view.start, view.exact) == (step, start, True)
        assert view.loss.hex() == rows[step]["loss"].hex()
        ours = {name: value for name, value in view.metrics.items() if not name.startswith("perf/")}
        logged = {name: value for name, value in rows[step].items() if name in ours}
        assert {name: value.hex() for name, value in ours.items() if isinstance(value, float)} == {
            name: value.hex() for name, value in logged.items() if isinstance(value, float)
        }
        assert len(view.records) == 4 and sum(one.loss for one in view.records) / 4 == pytest.approx(view.loss)
        assert sum(one.gradient_share or 0 for one in view.records) == pytest.approx(1)
        margins = [one.margin for one in view.records]
        assert np.mean(margins) == pytest.approx(rows[step]["rewards/margins"], rel=1e-6, abs=1e-9)
    assert content(folder) == before
    assert {one.caption_dropped for one in view.records} == {True, False}
    for one in view.records:
        chosen, rejected = one.samples
        for sample in one.samples:
            shape = {picture.shape for picture in sample.pictures}
            assert len(shape) == 1 and all(picture.dtype == np.uint8 for picture in sample.pictures)
            against = sample.numbers["error, policy"] - sample.numbers["error, reference"]
            assert sample.numbers["against reference"] == pytest.approx(against, abs=1e-6)
            assert sample.numbers["log-ratio"] == pytest.approx(-0.5 * against, abs=1e-6)
        gap = chosen.numbers["implicit reward"] - rejected.numbers["implicit reward"]
        assert one.margin == pytest.approx(gap, abs=1e-5)
    first = explain_step(folder, 1).records[0]
    for sample in first.samples:  # before the first update both models are one
        assert np.array_equal(sample.pictures[2], sample.pictures[3]) and sample.numbers["log-ratio"] == 0


def test_without_a_good_checkpoint_it_is_replayed_from_the_start(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Trainer(build_recipe(recipe_keys(training__checkpoint_every=1))).fit()
    for path in (folder / "checkpoints").iterdir():
        weights = path / "policy.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        view = explain_step(folder, 3)
    assert (view.start, view.exact) == (0, True) and "replaying from an older one" in caplog.text


def test_what_was_not_logged_is_told(recipe_keys: Keys) -> None:
    folder = Trainer(build_recipe(recipe_keys(training__log_every=2))).fit()
    view = explain_step(folder, 1)
    assert view.exact is None and "the log has no line of this step" in view.sentence
    rows = read_metrics(folder / "metrics.jsonl")
    rows[0]["loss"] += 1e-3
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert explain_step(folder, 2).exact is False


@pytest.mark.usefixtures("toy_objectives")
def test_a_replayed_update_is_explained_too(recipe_keys: Keys) -> None:
    shape = {"steps": 2, "batch_size": 2, "accumulation": 2}
    folder = Trainer(build_recipe(recipe_keys(objective="toy_anchored", training=shape))).fit()
    view = explain_step(folder, 2)
    assert view.exact and len(view.records) == 4
    assert sum(one.gradient_share or 0 for one in view.records) == pytest.approx(1)


def test_a_run_that_reads_its_reference_from_a_bank_is_explained_by_the_live_one(recipe_keys: Keys) -> None:
    shape = {"steps": 3, "batch_size": 8, "checkpoint_every": 2}
    folder = Trainer(build_recipe(recipe_keys(training=shape, bank={"slots": 1}))).fit()
    view = explain_step(folder, 3)  # of the second visit, which was read from the bank
    assert view.exact and view.start == 2 and len(view.records) == 8
    assert all(sample.pictures[2] is not None for one in view.records for sample in one.samples)


def test_a_method_without_a_reference_shows_the_policy_alone(recipe_keys: Keys) -> None:
    view = explain_step(Trainer(build_recipe(recipe_keys(method="sft"))).fit(), 2)
    assert view.exact and all(len(one.samples) == 1 and one.margin is None for one in view.records)
    assert all(one.samples[0].pictures[2] is None and one.samples[0].pictures[3] is not None for one in view.records)
    assert step_grid(view).size[0] > 500


def test_the_command_writes_page_pictures_and_numbers(
    recipe_keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = Trainer(build_recipe(recipe_keys())).fit()
    output = tmp_path / "told"
    assert main(["explain", str(folder), "--step", "2", "--output", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    written = json.loads((output / "explain.json").read_text())
    assert (
        written == {name: value for name, value in told.items() if name not in ("html", "png")} | {"json": told["json"]}
        or written.items() <= told.items()
    )
    assert written["exact"] is True and set(written["records"][0]["samples"]) == {"chosen", "rejected"}
    page = (output / "explain.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 2 * 5 and "http" not in page.split("</style>")[1]
    assert "the same bits as in the log" in page
    with Image.open(output / "explain.png") as picture:
        assert picture.size[0] > 1000
    assert main(["explain", str(folder), "--step", "2"]) == 0
    assert (folder / "explained" / "step-000002" / "explain.html").is_file()


def test_mistakes_are_one_line(recipe_keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Trainer(build_recipe(recipe_keys())).fit()
    capsys.readouterr()
    for words, told in (
        ([str(tmp_path / "none"), "--step", "1"], "is not a run: no such folder"),
        ([str(tmp_path), "--step", "1"], "is not a run: has no config.yaml"),
        ([str(folder), "--step", "4"], "--step: must be one of the 3 updates"),
        ([str(folder), "--step", "0"], "--step: must be one of the 3 updates"),
        ([str(folder), "--step", "x"], "--step"),
        ([str(folder)], "--step"),
    ):
        assert main(["explain", *words]) == 2
        error = capsys.readouterr().err.strip()
        assert told in error and len(error.splitlines()) == 1
    with pytest.raises(CheckpointError):
        explain_step(tmp_path / "none", 1)
    with pytest.raises(ConfigError):
        explain_step(folder, 9)


def test_a_perfect_prediction_implies_the_clean_picture_under_the_schedule_that_noised() -> None:
    family, method = families.get("sd").tiny(), DiffusionDPO(timestep_rule="turbo")
    media = {name: torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(0)) for name in GROUPS}
    told = family.encode_prompt(["a", "b", "c", "d"], 64)
    batch = Batch(tuple((str(n), 0) for n in range(4)), media, {"": told}, {}, family.encode_prompt([""], 64))
    rows = method.prepare(batch, Context(family, {}, Random(0)))
    pictures = _pictures(family, family, batch, rows, {"policy": rows.inputs["target"].double()})
    inner = [n for n in range(4) if rows.inputs["timesteps"][n] < 999]  # at pure noise nothing is implied
    assert inner
    for group in GROUPS:
        for clean, _, _, implied in (pictures[group][n] for n in inner):
            assert np.abs(clean.astype(int) - implied.astype(int)).max() <= 2


def test_it_needs_no_lock(recipe_keys: Keys) -> None:
    """A run that goes on can be looked at."""
    trainer = Trainer(build_recipe(recipe_keys(training__checkpoint_every=1)))
    steps = trainer.steps()
    rows = [next(steps), next(steps)]
    view = explain_step(trainer.output, 2)
    assert view.exact and view.loss == rows[1]["loss"]
    weights = [p.detach().clone() for p in trainer.updater.trained]
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.updater.trained, strict=True))
    assert next(steps)["step"] == 3

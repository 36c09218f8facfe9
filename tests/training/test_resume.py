"""A run goes on where its checkpoint is, bit by bit; nothing that decides the numbers may have changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffpref.config import Recipe, build_recipe, load_recipe
from diffpref.config.problems import dotted_names
from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.files import write_atomic
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints
from diffpref.training.log import MetricsLog, read_metrics
from diffpref.training.resume import FREE_ON_RESUME, refuse_changes, with_records_per_update

Keys = Callable[..., dict[str, Any]]
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})


def run(keys: dict[str, Any], **changes: Any) -> Trainer:
    training = {**keys["training"], **changes}
    trainer = Trainer(build_recipe({**keys, "training": training}))
    trainer.fit()
    return trainer


def exact(path: Path) -> list[dict[str, Any]]:
    """Return the metrics with floats in hex, without those of speed."""
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(path / "metrics.jsonl")
    ]


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopping_and_going_on_gives_the_same_bits(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any], precision: str
) -> None:
    common = {"adapter": adapter, "model__precision": precision, "optim": {"learning_rate": 1e-3, "warmup_steps": 2}}
    shape = {"steps": 12, "batch_size": 2, "accumulation": 2, "checkpoint_every": 5}  # 16 pairs: visits change
    straight = run(recipe_keys(output=str(tmp_path / "straight"), training=shape, **common))
    broken = recipe_keys(output=str(tmp_path / "broken"), training=shape, **common)
    partial = Trainer(build_recipe(broken))
    for metrics in partial.steps():
        if metrics["step"] == 8:
            break  # three updates after the checkpoint of step 5
    assert len(exact(partial.output)) == 8
    resumed = Trainer(build_recipe(broken))
    resumed.setup()
    assert resumed.step == 5 and len(exact(partial.output)) == 5
    resumed.fit()
    assert exact(resumed.output) == exact(straight.output) and len(exact(straight.output)) == 12
    files = [next((t.output / t.plan.adapter.folder).glob("*.safetensors")) for t in (straight, resumed)]
    first, second = map(load_file, files)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    moments = [load_file(list_checkpoints(t.output)[-1] / "optimizer.safetensors") for t in (straight, resumed)]
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])


def test_a_finished_run_goes_on_with_more_steps(recipe_keys: Keys, tmp_path: Path) -> None:
    straight = run(recipe_keys(output=str(tmp_path / "straight"), training__steps=6))
    keys = recipe_keys(output=str(tmp_path / "longer"), training__steps=4)
    run(keys)
    longer = run(keys, steps=6, log_every=1, keep=1)
    assert exact(longer.output) == exact(straight.output)
    assert load_recipe(longer.output / "config.yaml").training.steps == 6
    assert [path.name for path in list_checkpoints(longer.output)] == ["step-000006"]


def test_running_a_finished_run_again_changes_nothing(recipe_keys: Keys) -> None:
    first = run(recipe_keys())
    before, lines = (first.output / "lora/pytorch_lora_weights.safetensors").read_bytes(), exact(first.output)
    again = run(recipe_keys())
    assert (again.output / "lora/pytorch_lora_weights.safetensors").read_bytes() == before
    assert exact(again.output) == lines


def test_changes_that_decide_the_numbers_are_refused_with_a_diff(recipe_keys: Keys) -> None:
    run(recipe_keys())
    changed = recipe_keys(optim={"learning_rate": 1e-3}, objective="ipo", training={"steps": 9, "batch_size": 4})
    with pytest.raises(ConfigError) as caught:
        run(changed)
    assert str(caught.value).splitlines() == [
        f"output: {changed['output']} holds a run with other settings; choose another folder",
        "objective: None -> ['ipo']",
        "optim.learning_rate: 0.0001 -> 0.001",
        "training.records_per_update: 2 -> 4",
    ]


def test_every_setting_is_either_free_or_refused(recipe_keys: Keys) -> None:
    """A new setting is refused until someone has thought about it and named it here."""
    assert set(dotted_names(Recipe)) >= FREE_ON_RESUME
    assert {name.partition(".")[0] for name in FREE_ON_RESUME} == {
        "output", "bank", "data", "training", "validation", "guards"
    }  # fmt: skip
    recipe = build_recipe(recipe_keys())
    free = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 7, "keep": 5})})
    refuse_changes(recipe, free)
    for section, field, value in (("model", "path", "x"), ("data", "min_gap", 1.0), ("training", "batch_size", 3)):
        other = getattr(recipe, section).model_copy(update={field: value})
        with pytest.raises(ConfigError, match=rf"{section}\.{field}: "):  # no number of records was saved: none is free
            refuse_changes(recipe, recipe.model_copy(update={section: other}))


def test_how_an_updates_records_are_shared_out_is_free_and_their_number_is_not(recipe_keys: Keys) -> None:
    saved = with_records_per_update(build_recipe(recipe_keys(training={"batch_size": 2, "accumulation": 4})), 1)
    assert saved.training.records_per_update == 8
    for size, accumulation, processes in ((8, 1, 1), (1, 8, 1), (1, 4, 2), (2, 1, 4)):
        keys = recipe_keys(training={"batch_size": size, "accumulation": accumulation})
        refuse_changes(saved, with_records_per_update(build_recipe(keys), processes))
    other = build_recipe(recipe_keys(training={"batch_size": 2, "accumulation": 4}))
    with pytest.raises(ConfigError, match=r"\ntraining\.records_per_update: 8 -> 16$"):
        refuse_changes(saved, with_records_per_update(other, 2))
    with pytest.raises(ConfigError, match=r"records_per_update: is 8, but batch_size 2 x accumulation 4 x 3 processes"):
        with_records_per_update(saved, 3)


def test_row_09_a_run_goes_on_with_the_same_records_however_they_are_shared_out(
    recipe_keys: Keys, tmp_path: Path
) -> None:
    def keys(name: str, size: int) -> dict[str, Any]:
        shape = {"steps": 4, "batch_size": size, "accumulation": 8 // size}
        return recipe_keys(output=str(tmp_path / name), objective={"dpo": {"beta": 20}}, training=shape)

    straight = run(keys("straight", 8))
    for steps, size in enumerate((8, 4, 2, 1), start=1):  # one update by each
        resumed = run(keys("resumed", size), steps=steps)
    rows = [read_metrics(trainer.output / "metrics.jsonl") for trainer in (resumed, straight)]
    assert len(rows[0]) == 4
    for row, wanted in zip(*rows, strict=True):
        for name in {name for name in wanted if not name.startswith("perf/")}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), name
    first, second = (
        torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained]) for trainer in (resumed, straight)
    )
    assert (first - second).norm() <= 1e-5 * second.norm()
    assert load_recipe(resumed.output / "config.yaml").training.records_per_update == 8


def test_an_existing_run_is_refused_when_it_shall_not_go_on(recipe_keys: Keys) -> None:
    first = run(recipe_keys())
    lines = exact(first.output)
    with pytest.raises(ConfigError, match=r"training\.resume: is false, but .* holds a run already"):
        run(recipe_keys(), resume=False)
    assert exact(first.output) == lines


def test_a_run_that_could_not_start_does_not_stand_in_the_way(recipe_keys: Keys, scored_store: Path) -> None:
    wrong = recipe_keys(data__source="/nowhere/store")
    with pytest.raises(Exception, match="no such file"):
        run(wrong)
    assert run(recipe_keys(), resume=False).step == 3


def test_a_checkpoint_of_another_model_is_refused(recipe_keys: Keys) -> None:
    trainer = run(recipe_keys())
    (trainer.output / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="step-000003"):
        run(recipe_keys(adapter={"kind": "lora", "rank": 2}))


def test_a_line_cut_by_a_kill_is_left_out_and_later_lines_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_atomic(path, "".join(json.dumps({"step": n, "loss": 0.1 + n}) + "\n" for n in (1, 2, 3)) + '{"step": 4, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    log = MetricsLog(path, step=2)
    log.write({"step": 3, "loss": 1 / 3})
    assert [row["loss"] for row in read_metrics(path)] == [1.1, 2.1, 1 / 3]
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 4, "loss": float("nan")})

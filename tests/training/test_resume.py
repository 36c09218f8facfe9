"""A run goes on where its checkpoint is, bit by bit; nothing that decides the numbers may have changed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffpref.cli import main
from diffpref.config import Named, Recipe, build_recipe, load_recipe
from diffpref.config.problems import dotted_names
from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.files import read_json, write_atomic, write_json
from diffpref.data import read_store, write_store
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints, open_checkpoint
from diffpref.training.log import MetricsLog, read_metrics
from diffpref.training.resume import DECIDES_THE_NUMBERS, FREE_ON_RESUME, refuse_changes, with_records_per_update
from diffpref.training.run_state import restore_state

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


def test_row_08_changes_that_decide_the_numbers_are_refused_with_a_diff(recipe_keys: Keys) -> None:
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


def test_row_08_every_setting_is_classified() -> None:
    """A new setting is refused until someone has thought about it and named it in one of the two sets."""
    known = set(dotted_names(Recipe))
    assert FREE_ON_RESUME | DECIDES_THE_NUMBERS == known, known ^ (FREE_ON_RESUME | DECIDES_THE_NUMBERS)
    assert not FREE_ON_RESUME & DECIDES_THE_NUMBERS


OTHER: dict[str, Any] = {
    "method": Named.model_validate("sft"),
    "objective": [Named.model_validate("ipo")],
}


def changed(section: Any, path: str, rest: str) -> Any:
    """Return a section with another value of the setting that is called ``path`` in the recipe."""
    head, _, inner = rest.partition(".")
    value = getattr(section, head)
    other = changed(value, path, inner) if inner else OTHER.get(path, (value, "other"))
    return section.model_copy(update={head: other})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_row_08_each_setting_is_allowed_to_change_or_refused_by_its_name(recipe_keys: Keys) -> None:
    recipe = with_records_per_update(build_recipe(recipe_keys()), 1)
    for path in sorted(FREE_ON_RESUME):
        refuse_changes(recipe, changed(recipe, path, path))
    for path in sorted(DECIDES_THE_NUMBERS):  # whether the value is a possible one is of no matter here
        with pytest.raises(ConfigError, match=rf"\n{path}: .* -> "):
            refuse_changes(recipe, changed(recipe, path, path))


def test_row_08_a_checkpoint_remembers_its_settings_should_the_recipe_be_lost(recipe_keys: Keys) -> None:
    trainer = run(recipe_keys())
    (trainer.output / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"\nadapter\.rank: 8 -> 2$"):
        run(recipe_keys(adapter={"kind": "lora", "rank": 2}))
    with pytest.raises(ConfigError, match=r"training\.resume: is false"):
        run(recipe_keys(), resume=False)
    assert run(recipe_keys(), steps=4).step == 4


def test_row_08_other_data_are_refused_and_the_same_in_another_place_are_not(
    recipe_keys: Keys, scored_store: Path, tmp_path: Path
) -> None:
    trainer = run(recipe_keys())
    shutil.copytree(scored_store, tmp_path / "moved")
    assert run(recipe_keys(data__source=str(tmp_path / "moved")), steps=4).step == 4
    records = list(read_store(scored_store))
    other = replace(records[5], prompt=records[5].prompt + " ")
    for name, kept in (
        ("less", records[1:]),
        ("caption", [*records[:5], other, *records[6:]]),
        ("order", records[::-1]),
    ):
        write_store(tmp_path / name, kept)
        told = rf"^data\.source: holds {len(kept)} pairs of content \w+, but .* was trained on 16 pairs of content"
        with pytest.raises(ConfigError, match=told):
            run(recipe_keys(data__source=str(tmp_path / name)), steps=5)
    assert exact(trainer.output)[-1]["step"] == 4


def test_row_08_fewer_steps_than_were_done_are_refused(recipe_keys: Keys) -> None:
    run(recipe_keys())
    with pytest.raises(ConfigError, match=r"^training\.steps: .* holds 3 updates already, more than 2; give"):
        run(recipe_keys(), steps=2)


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
    found = open_checkpoint(list_checkpoints(trainer.output)[-1])
    other = Trainer(build_recipe(recipe_keys(output=f"{trainer.output}-2", adapter={"kind": "lora", "rank": 2})))
    other.setup()
    with pytest.raises(CheckpointError, match="step-000003: does not fit this model"):
        restore_state(found, other.updater, other.moving, other.plan.adapter, other.bare)


def test_row_05_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    recipe_keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = {"steps": 6, "batch_size": 2, "checkpoint_every": 2}
    straight = run(recipe_keys(output=str(tmp_path / "straight"), training=shape))
    broken = run(recipe_keys(output=str(tmp_path / "broken"), training=shape))
    damaged = list_checkpoints(broken.output)[-1]
    (damaged / "optimizer.safetensors").write_bytes(b"garbage")
    again = Trainer(broken.recipe)
    with caplog.at_level(logging.WARNING):
        again.setup()
    assert again.step == 4 and [row["step"] for row in exact(again.output)] == [1, 2, 3, 4]
    (told,) = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "step-000006" in r.getMessage()
    ]
    assert "step-000006: optimizer.safetensors: 7 bytes, expected " in told
    again.fit()
    assert exact(again.output) == exact(straight.output) and open_checkpoint(damaged).step == 6
    assert not list(again.output.rglob(".*"))


def test_a_line_cut_by_a_kill_is_left_out_and_later_lines_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_atomic(path, "".join(json.dumps({"step": n, "loss": 0.1 + n}) + "\n" for n in (1, 2, 3)) + '{"step": 4, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    log = MetricsLog(path, step=2)
    log.write({"step": 3, "loss": 1 / 3})
    assert [row["loss"] for row in read_metrics(path)] == [1.1, 2.1, 1 / 3]
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 4, "loss": float("nan")})


def test_row_40_a_run_leaves_files_that_others_may_read_and_that_name_no_place(
    recipe_keys: Keys, tiny_sdxl: Path, scored_store: Path, tmp_path: Path
) -> None:
    """But for the recipe, which holds what was typed."""
    keys = recipe_keys(validation={"prompts": ["a red circle"], "every": 3, "num_inference_steps": 1})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(keys))
    output, umask = Path(keys["output"]), os.umask(0o027)
    try:
        assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    finally:
        os.umask(umask)
    files = [path for path in output.rglob("*") if path.is_file()]
    assert {"policy.safetensors", "pytorch_lora_weights.safetensors", "metrics.jsonl", "step-000003.png"} <= {
        path.name for path in files
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    private = [str(place).encode() for place in (tmp_path, tiny_sdxl, scored_store, Path.home(), Path.cwd())]
    named = [path.name for path in files if any(place in path.read_bytes() for place in private)]
    assert named == ["config.yaml"]


def test_row_06_a_run_without_a_good_checkpoint_stops_and_names_each(
    recipe_keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = recipe_keys(training={"steps": 4, "batch_size": 2, "checkpoint_every": 2})
    output = run(keys).output
    lines = exact(output)
    (output / "checkpoints/step-000002/manifest.json").unlink()
    (output / "checkpoints/step-000004/policy.safetensors").write_bytes(b"")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(keys))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 2
    head, newest, oldest = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffpref: ")]
    assert head == f"diffpref: {output}: no checkpoint is good; put one back, or remove the folder to begin again"
    assert newest.startswith(f"diffpref: {output}/checkpoints/step-000004: policy.safetensors: 0 bytes, expected ")
    assert oldest == f"diffpref: {output}/checkpoints/step-000002: manifest.json: missing"
    assert exact(output) == lines and not list(output.rglob(".*"))


def test_row_07_a_run_goes_on_from_a_checkpoint_of_format_1(recipe_keys: Keys, tmp_path: Path) -> None:
    straight = run(recipe_keys(output=str(tmp_path / "straight"), training__steps=6))
    keys = recipe_keys(output=str(tmp_path / "old"), training__steps=4)
    saved = list_checkpoints(run(keys).output)[-1]
    counters = read_json(saved / "counters.json")
    groups = [{k: v for k, v in g.items() if k not in ("role", "lr_scale")} for g in counters["optimizer"]["groups"]]
    write_json(saved / "optimizer.json", {**counters["optimizer"], "groups": groups})
    write_json(saved / "counters.json", {"format": 1, "step": 4, "scaler": counters["scaler"]})
    (saved / "manifest.json").unlink()
    longer = run(keys, steps=6)
    rows = [
        [{k: v for k, v in row.items() if "guards/" not in k} for row in exact(t.output)] for t in (longer, straight)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 6  # the guards' own running average was not saved then
    assert open_checkpoint(list_checkpoints(longer.output)[-1]).counters["format"] == 2


def test_row_08_a_run_says_so_when_its_updates_are_shared_out_otherwise(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    run(recipe_keys(training={"steps": 1, "batch_size": 2, "accumulation": 2}))
    again = Trainer(build_recipe(recipe_keys(training={"steps": 2, "batch_size": 4})))
    with caplog.at_level(logging.WARNING):
        again.setup()
    (told,) = [message for message in caplog.messages if message.startswith("training: ")]
    assert "batch_size x accumulation was 2 x 2 and is 4 x 1" in told and told.endswith("to rounding, not to the bit")

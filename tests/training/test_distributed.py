"""Two processes are one with twice the batch, and a run goes on under any number of them. One launch for all checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffpref.config import build_recipe, load_recipe, save_recipe
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints
from diffpref.training.log import read_metrics

pytestmark = pytest.mark.slow

KINDS = {"lora": {"kind": "lora", "rank": 4, "alpha": 16.0}, "full": {"kind": "full"}}
STEPS = 4
Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def keys(tiny_sdxl: Path, scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Make the keys of a recipe in a folder of this module; its beta keeps rounding small."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name: str, kind: str, size: int, accumulation: int, **changes: Any) -> dict[str, Any]:
        shape = {"steps": STEPS, "batch_size": size, "accumulation": accumulation, "checkpoint_every": 2}
        return {
            "output": str(folder / f"{name}-{kind}"),
            "model": {"family": "sdxl", "path": str(tiny_sdxl)},
            "adapter": KINDS[kind],
            "data": {"source": str(scored_store), "score": "oracle", "cache": str(folder / "cache")},
            "method": "diffusion_dpo",
            "objective": {"dpo": {"beta": 20}},
            "optim": {"learning_rate": 1e-4},
            "training": {**shape, **changes},
        }

    return make


def begin(keys: dict[str, Any], steps: int = 2) -> None:
    """Run so many updates of a run, with their checkpoint, in this process."""
    trainer = Trainer(build_recipe(keys))
    for metrics in trainer.steps():
        if metrics["step"] == steps:
            trainer.save_checkpoint()
            return


def fit(keys: dict[str, Any]) -> Path:
    return Trainer(build_recipe(keys)).fit()


def assert_same_run(output: Path, expected: Path) -> None:
    """Metrics, weights and moments agree to 1e-5 relative."""
    ours, theirs = (read_metrics(folder / "metrics.jsonl") for folder in (output, expected))
    assert len(ours) == len(theirs) == STEPS
    for row, wanted in zip(ours, theirs, strict=True):
        assert row.keys() == wanted.keys()
        for name in {name for name in wanted if not name.startswith("perf/")}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), (row["step"], name)
    for part in ("policy", "optimizer"):
        states = [load_file(list_checkpoints(folder)[-1] / f"{part}.safetensors") for folder in (output, expected)]
        assert states[0].keys() == states[1].keys()
        first, second = (torch.cat([s[name].reshape(-1).double() for name in sorted(s)]) for s in states)
        assert (first - second).norm() <= 1e-5 * second.norm(), part


@pytest.fixture(scope="module")
def two(keys: Keys, run_together: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Launch two processes once; name of a check -> what each process said."""
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    save_recipe(build_recipe(keys("command", "lora", 2, 2)), recipe)
    checks: dict[str, tuple[str, dict[str, Any]]] = {"command": ("command", {"argv": ["train", str(recipe)]})}
    for kind in KINDS:
        begin(keys("grow", kind, 8, 1))
        checks[f"two {kind}"] = ("train", {"keys": keys("two", kind, 2, 2)})
        checks[f"grow {kind}"] = ("train", {"keys": keys("grow", kind, 1, 4)})
        checks[f"shrink {kind}"] = ("train", {"keys": keys("shrink", kind, 4, 1), "steps": 2})
    checks["other number"] = ("refused", {"keys": keys("grow", "lora", 2, 4)})
    found = run_together(list(checks.values()))
    return {name: [process[i] for process in found] for i, name in enumerate(checks)}


@pytest.fixture(scope="module")
def one(keys: Keys) -> dict[str, Path]:
    """The same runs by one process that takes all records at once."""
    return {kind: fit(keys("one", kind, 8, 1)) for kind in KINDS}


def test_no_check_failed_on_any_process(two: dict[str, list[Any]]) -> None:
    assert {name: [a.get("traceback") for a in answers if "error" in a] for name, answers in two.items()} == {
        name: [] for name in two
    }


@pytest.mark.parametrize("kind", KINDS)
def test_row_09_two_processes_are_one_with_twice_the_batch(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, kind: str
) -> None:
    assert_same_run(Path(keys("two", kind, 2, 2)["output"]), one[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_row_09_a_run_of_one_process_goes_on_under_two(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, kind: str
) -> None:
    output = Path(keys("grow", kind, 1, 4)["output"])
    assert_same_run(output, one[kind])
    assert load_recipe(output / "config.yaml").training.records_per_update == 8


@pytest.mark.parametrize("kind", KINDS)
def test_row_09_a_run_of_two_processes_goes_on_under_one(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, kind: str
) -> None:
    saved = Path(keys("shrink", kind, 4, 1)["output"])
    assert [path.name for path in list_checkpoints(saved)] == ["step-000002"]
    assert_same_run(fit(keys("shrink", kind, 2, 4)), one[kind])


def test_row_09_another_number_of_records_an_update_is_refused_on_every_process(two: dict[str, list[Any]]) -> None:
    for answer in two["other number"]:
        assert answer["value"].endswith("training.records_per_update: 8 -> 16")


def test_the_command_trains_under_a_launcher_and_one_process_speaks(two: dict[str, list[Any]]) -> None:
    said = [answer["value"] for answer in two["command"]]
    assert [text.count(f"trained {STEPS} updates") for text in said] == [1, 0]

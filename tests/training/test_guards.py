"""What a loss or a gradient that is not finite does: nothing to the weights, a report, and a count."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.errors import NonFiniteError
from diffpref.objectives import objective, registry
from diffpref.training import Trainer
from diffpref.training.guards import json_safe
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})


class _Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * math.inf


@pytest.fixture
def toys() -> Iterator[list[float]]:
    """Objectives that are registered from here; the list holds the factors of the coming losses of ``toy_factor``."""
    factors: list[float] = []

    @objective("toy_explodes", kind="supervised", source="ours", evidence="ours")
    def explodes(*, policy_chosen_logps: Tensor) -> Tensor:
        """Finite, but its gradient is not."""
        return -_Explodes.apply(policy_chosen_logps)

    @objective("toy_factor", kind="supervised", source="ours", evidence="ours")
    def factor(*, policy_chosen_logps: Tensor) -> Tensor:
        """Times the next factor."""
        real = policy_chosen_logps.requires_grad  # and not a stand-in's
        return -policy_chosen_logps * (factors.pop(0) if factors and real else 1.0)

    yield factors
    for name in [name for name in registry._things if name.startswith("toy_")]:
        del registry._things[name], registry._origins[name]


def state(trainer: Trainer) -> list[Tensor]:
    """Return copies of all that an update changes: parameters and the optimiser's tensors."""
    optimizer = trainer.updater.optimizer
    moments = [t for values in optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
    return [t.detach().clone() for t in (*trainer.updater.trained, *moments)]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def poison(cache: Path) -> None:
    """Make every cached latent NaN."""
    for shard in cache.rglob("tensors.safetensors"):
        tensors = {k: t * math.nan if k.endswith("/mean") else t for k, t in load_file(shard).items()}
        save_file(tensors, shard)


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_row_10_a_loss_that_is_not_finite_stops_before_anything_changes(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    keys = recipe_keys(adapter=adapter, data__cache=str(tmp_path / "cache"), training__steps=2)
    list(Trainer(build_recipe(keys)).steps())
    keys["training"] = {**keys["training"], "steps": 4}
    poison(tmp_path / "cache")
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    before, groups = state(trainer), copy.deepcopy(trainer.updater.optimizer.state_dict()["param_groups"])
    with pytest.raises(NonFiniteError, match=r"update 3: the loss is not finite; nothing was changed. Records: r\d\d/"):
        next(trainer.steps())
    assert equal(state(trainer), before) and len(before) > len(trainer.updater.trained) and trainer.step == 2
    assert trainer.updater.optimizer.state_dict()["param_groups"] == groups
    assert all(p.grad is None for p in trainer.updater.trained)
    assert [row["step"] for row in read_metrics(trainer.output / "metrics.jsonl")] == [1, 2]
    (update,) = json.loads((trainer.output / "nonfinite.json").read_text())["updates"]
    assert (update["update"], update["what"], update["gradient_norm"]) == (3, "loss", None)
    items = trainer.batches.sampler.batch(2, 2)
    assert [(one["record"].split("/")[0], one["visit"]) for one in update["records"]] == [
        (trainer.batches.items[index].record_id, visit) for index, visit in items
    ]
    for one in update["records"]:
        assert 0 <= one["timestep"] < 1000 and (one["rank"], one["micro_batch"]) == (0, 0)
        assert one["finite"] is False and one["losses"] == {"objective[0].dpo": "NaN"}
        assert one["read"] == {"chosen_log_ratio": "NaN", "rejected_log_ratio": "NaN"}


def test_row_11_a_gradient_that_is_not_finite_stops_before_anything_changes(
    recipe_keys: Keys, toys: list[float], tmp_path: Path
) -> None:
    keys = recipe_keys(objective="toy_explodes", training={"steps": 1, "batch_size": 2, "accumulation": 2})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    before = state(trainer)
    with pytest.raises(
        NonFiniteError, match=r"update 1: the gradient's norm is (nan|inf); nothing was changed \(in \d+ "
    ):
        next(trainer.steps())
    assert equal(state(trainer), before)
    (update,) = json.loads((trainer.output / "nonfinite.json").read_text())["updates"]
    assert update["what"] == "gradient" and update["gradient_norm"] in ("NaN", "Infinity")
    assert update["parameters"] and set(update["parameters"]) <= set(dict(trainer.bare.named_parameters()))
    assert [one["micro_batch"] for one in update["records"]] == [0, 0, 1, 1]
    assert all(one["finite"] and one["losses"]["objective[0].toy_explodes"] > 0 for one in update["records"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_row_12_refused_updates_are_skipped_counted_and_change_nothing(
    recipe_keys: Keys, toys: list[float], bad: float
) -> None:
    guards = {"nonfinite": "skip", "max_skips": 2}
    keys = recipe_keys(method="sft", objective="toy_factor", guards=guards, training={"steps": 7, "batch_size": 2})
    toys += [1.0, bad, bad, 1.0, bad, 1.0, 1.0]
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    before, counts, moved = state(trainer), [], []
    for row in trainer.steps():
        counts.append(row["data/skipped"])
        moved.append(not equal(state(trainer), before))
        before = state(trainer)
        assert ("loss" in row) == ("grad_norm" in row) == moved[-1]
    assert moved == [True, False, False, True, False, True, True] and counts == [0, 1, 2, 2, 3, 3, 3]
    report = json.loads((trainer.output / "nonfinite.json").read_text())
    assert [update["update"] for update in report["updates"]] == [2, 3, 5] and report["policy"] == "skip"
    assert {one["losses"]["objective[0].toy_factor"] for u in report["updates"] for one in u["records"]} == {
        json_safe(bad * 1.0)
    }
    written = read_metrics(trainer.output / "metrics.jsonl")
    assert [row["data/skipped"] for row in written] == counts and "loss" not in written[1]


def test_row_12_too_many_skips_in_a_row_stop(recipe_keys: Keys, toys: list[float]) -> None:
    guards = {"nonfinite": "skip", "max_skips": 2}
    keys = recipe_keys(method="sft", objective="toy_factor", guards=guards, training={"steps": 9, "batch_size": 2})
    toys += [math.nan, math.nan, 1.0, math.nan, math.nan, math.nan]
    trainer = Trainer(build_recipe(keys))
    steps = trainer.steps()
    assert [next(steps)["data/skipped"] for _ in range(5)] == [1, 2, 2, 3, 4]
    before = state(trainer)
    with pytest.raises(NonFiniteError, match=r"That is 3 in a row, more than guards\.max_skips = 2"):
        next(steps)
    assert equal(state(trainer), before) and trainer.step == 5


def test_row_12_a_bad_micro_batch_takes_its_whole_update_with_it(recipe_keys: Keys, toys: list[float]) -> None:
    shape = {"steps": 2, "batch_size": 2, "accumulation": 2}
    keys = recipe_keys(method="sft", objective="toy_factor", guards={"nonfinite": "skip"}, training=shape)
    toys += [1.0, math.nan]
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    before, steps = state(trainer), trainer.steps()
    assert "loss" not in next(steps) and equal(state(trainer), before)
    alone = next(steps)  # equals an update on which no half-made gradient was left
    other = Trainer(build_recipe({**keys, "output": keys["output"] + "-other"}))
    other.setup()
    assert other.updater(1)["grad_norm"] == alone["grad_norm"] and other.updater.guard.skipped == 0

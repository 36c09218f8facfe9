"""One update: where it starts, what a batch is divided into, what weights mean, what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.contracts import Judgement
from diffpref.core.errors import DataError
from diffpref.data import read_store, write_store
from diffpref.objectives import objective, registry
from diffpref.training import Trainer
from diffpref.training.forward import run_forward
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})


def trained(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


def judged(store: Path, folder: Path, **columns: list[float]) -> str:
    """Copy a store; its records get one judgement each, with these probabilities or weights."""
    records = list(read_store(store))
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    told = [Judgement(0, 1, **{"probability": 1.0, **value}) for value in values]
    write_store(folder, [replace(r, judgements=(j,)) for r, j in zip(records, told, strict=False)])
    return str(folder)


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_margin_is_exactly_zero_and_the_loss_ln_2(
    recipe_keys: Keys, adapter: dict[str, Any], precision: str
) -> None:
    trainer, (first, *later) = trained(recipe_keys(adapter=adapter, model__precision=precision))
    assert first["rewards/margins"] == first["rewards/chosen"] == first["errors/chosen_vs_reference"] == 0.0
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["rewards/accuracies"] == 0.5 and first["grad_norm"] > 0
    assert all(math.isfinite(value) for row in (first, *later) for value in row.values())
    assert later[-1]["rewards/margins"] != 0
    assert {p.dtype for p in trainer.updater.trained} == {torch.float32}
    network = {p.dtype for p in trainer.bare.parameters() if not p.requires_grad}
    assert network == (
        {torch.bfloat16 if precision == "bf16" else torch.float32} if adapter["kind"] == "lora" else set()
    )


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_training_does_not_move_the_reference(recipe_keys: Keys, adapter: dict[str, Any]) -> None:
    trainer = Trainer(build_recipe(recipe_keys(adapter=adapter, optim__learning_rate=1e-2)))
    trainer.setup()
    batch = trainer.batches.batch(trainer.batches.sampler.batch(0, 4))
    rows = trainer.plan.method.prepare(batch, trainer.updater.context)
    before = {name: trainer.roles[name](rows)["prediction"] for name in ("policy", "reference")}
    list(trainer.steps())
    after = {name: trainer.roles[name](rows)["prediction"] for name in ("policy", "reference")}
    assert torch.equal(before["reference"], after["reference"]) and torch.equal(before["policy"], before["reference"])
    assert not torch.allclose(before["policy"], after["policy"])


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_row_09_one_by_eight_is_two_by_four_is_eight_by_one(
    recipe_keys: Keys, adapter: dict[str, Any], tmp_path: Path
) -> None:
    # Forwards of other row counts differ by 1e-7, which beta multiplies: 5000 would leave 1e-4 of the gradient open.
    (whole, expected), *others = (
        trained(
            recipe_keys(
                output=str(tmp_path / str(size)),
                adapter=adapter,
                objective={"dpo": {"beta": 20}},
                training={"steps": 3, "batch_size": size, "accumulation": 8 // size},
            )
        )
        for size in (8, 4, 2, 1)
    )
    for other, rows in others:
        for row, wanted in zip(rows, expected, strict=True):
            for name in {name for name in wanted if not name.startswith("perf/")}:
                assert row[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), name
        assert (weights(other) - weights(whole)).norm() <= 1e-5 * weights(whole).norm()
    assert [row["loss"] for row in expected] != [expected[0]["loss"]] * 3


@pytest.mark.parametrize(("size", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_loss_and_gradient_are_the_weighted_means_of_the_records(
    recipe_keys: Keys, scored_store: Path, tmp_path: Path, size: int, accumulation: int
) -> None:
    given = [0.5, 2.0, 0.0, 3.0, 1.0, 0.25, 4.0, 1.5]
    source = judged(scored_store, tmp_path / "weighted", weight=given)
    shape = {"steps": 1, "batch_size": size, "accumulation": accumulation}
    trainer = Trainer(build_recipe(recipe_keys(data__source=source, data__score=None, method="sft", training=shape)))
    trainer.setup()
    items = trainer.batches.sampler.batch(0, 4)
    chosen = [given[index] for index, _ in items]
    singles = [loss_and_gradient(trainer, item) for item in items]
    (row,) = trainer.steps()
    mean = sum(w * loss for w, (loss, _) in zip(chosen, singles, strict=True)) / sum(chosen)
    gradient = sum(w * g for w, (_, g) in zip(chosen, singles, strict=True)) / sum(chosen)
    assert len(set(chosen)) == 4 and row["loss"] == pytest.approx(mean, rel=1e-5)
    assert row["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)


def loss_and_gradient(trainer: Trainer, item: tuple[int, int]) -> tuple[float, Tensor]:
    """Return what one record alone gives, without its weight."""
    batch = replace(trainer.batches.batch([item]), columns={})
    forward = run_forward(trainer.plan, trainer.updater.likelihood, batch, trainer.updater.context)
    parameters = trainer.updater.trained
    found = torch.autograd.grad(forward.sums[0], parameters, allow_unused=True, materialize_grads=True)
    return forward.sums[0].item(), torch.cat([g.reshape(-1) for g in found])


def test_weights_of_zero_in_a_whole_update_are_refused(recipe_keys: Keys, scored_store: Path, tmp_path: Path) -> None:
    source = judged(scored_store, tmp_path / "zero", weight=[0.0] * 16)
    with pytest.raises(DataError, match="update 1: the weights of its records are all 0"):
        trained(recipe_keys(data__source=source, data__score=None))
    source = judged(scored_store, tmp_path / "negative", weight=[-1.0] * 16)
    with pytest.raises(DataError, match="weight must be >= 0, got -1"):
        trained(recipe_keys(data__source=source, data__score=None))


def test_a_soft_preference_reaches_the_objective(recipe_keys: Keys, scored_store: Path, tmp_path: Path) -> None:
    said = [0.9, 0.6, 0.8, 0.75]  # 0.2 below is the second picture's 0.8
    source = judged(scored_store, tmp_path / "soft", probability=[0.9, 0.6, 0.2, 0.75])
    keys = recipe_keys(data__source=source, data__score=None, optim__learning_rate=1e-2, training__batch_size=4)
    trainer = Trainer(build_recipe(keys))
    steps = trainer.steps()
    assert next(steps)["loss"] == pytest.approx(math.log(2), abs=1e-6)  # for any preference
    assert [pair.chosen for pair in trainer.batches.items] == [0, 0, 1, 0]
    items = trainer.batches.sampler.batch(1, 4)
    batch = trainer.batches.batch(items)
    torch.testing.assert_close(batch.columns["preference"], torch.tensor([said[index] for index, _ in items]))
    margin = []
    for item in items:
        one = trainer.batches.batch([item])
        forward = run_forward(trainer.plan, trainer.updater.likelihood, one, trainer.updater.context)
        margin.append(forward.metrics["rewards/margins"])
    m, p = torch.cat(margin), batch.columns["preference"]
    expected = -(p * torch.nn.functional.logsigmoid(m) + (1 - p) * torch.nn.functional.logsigmoid(-m)).mean()
    assert next(steps)["loss"] == pytest.approx(expected.item(), rel=1e-4) and m.abs().max() > 0.1


def test_checkpointing_activations_changes_no_number(recipe_keys: Keys, tmp_path: Path) -> None:
    for adapter in KINDS:
        keys = recipe_keys(adapter=adapter, output=str(tmp_path / f"plain-{adapter['kind']}"))
        plain, expected = trained(keys)
        keys["output"] += "-checkpointed"
        keys["model"] = {**keys["model"], "gradient_checkpointing": True}
        other, rows = trained(keys)
        assert other.bare.is_gradient_checkpointing and not plain.bare.is_gradient_checkpointing
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-6)
        torch.testing.assert_close(weights(other), weights(plain), rtol=1e-5, atol=1e-7)


def test_fp16_scales_the_loss_and_leaves_out_updates_that_overflow(recipe_keys: Keys) -> None:
    keys = recipe_keys(model__precision="fp16", optim__learning_rate=1e-3, training__steps=30)
    trainer, rows = trained(keys)
    scale = trainer.updater.scaler.get_scale()
    left_out = sum("grad_overflow" in row for row in rows)
    assert scale == 2.0**16 / 2**left_out and left_out < 30
    assert all(("grad_norm" in row) != ("grad_overflow" in row) for row in rows)
    keys["training"] = {**keys["training"], "steps": 31}
    again = Trainer(build_recipe(keys))
    again.setup()
    assert again.updater.scaler.get_scale() == scale


@pytest.fixture
def toys() -> Iterator[None]:
    """Objectives that are registered from here and taken out again."""

    @objective("toy_halves", kind="supervised", source="ours", evidence="ours")
    def halves(*, policy_chosen_logps: Tensor) -> Any:
        """A term with weights of its own."""
        from diffpref.core.contracts import Terms

        return Terms(-policy_chosen_logps, weights=torch.full_like(policy_chosen_logps, 0.5))

    yield
    for name in [name for name in registry._things if name.startswith("toy_")]:
        del registry._things[name], registry._origins[name]


def test_terms_are_reduced_by_their_own_weights_and_added(recipe_keys: Keys, toys: None, tmp_path: Path) -> None:
    def first(**changes: Any) -> dict[str, float]:
        recipe = recipe_keys(output=str(tmp_path / str(len(list(tmp_path.iterdir())))), training__steps=1, **changes)
        return trained(recipe)[1][0]

    alone = first(method="sft")
    halves = first(method="sft", objective="toy_halves")
    both = first(method="sft", objective=["nll", {"toy_halves": {"coefficient": 3.0}}])
    assert halves["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert halves["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5)
    assert both["loss"] == pytest.approx(4 * alone["loss"], rel=1e-6)
    assert both["grad_norm"] == pytest.approx(4 * alone["grad_norm"], rel=1e-5)


def test_the_log_has_the_agreed_names(recipe_keys: Keys) -> None:
    trainer, rows = trained(recipe_keys())
    assert [name for name in rows[0] if "/timestep_bin_" not in name] == [
        "step", "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logits/scale",
        "logps/chosen", "errors/chosen", "errors/chosen_vs_reference",
        "logps/rejected", "errors/rejected", "errors/rejected_vs_reference",
        "grad_norm", "lr", "perf/images_per_second", "perf/memory_bytes", "guards/winner_error",
    ]  # fmt: skip
    binned = {name.split("/")[0] for name in rows[0] if "/timestep_bin_" in name}
    assert binned == {"margins", "accuracies", "losses", "gradient_share"}
    written = read_metrics(trainer.output / "metrics.jsonl")
    assert [{k: v.hex() if isinstance(v, float) else v for k, v in row.items()} for row in written] == [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items()} for row in rows
    ]


def test_supervised_training_neither_encodes_nor_asks_about_the_rejected(recipe_keys: Keys, tmp_path: Path) -> None:
    trainer, (row, *_) = trained(recipe_keys(method="sft", data__cache=str(tmp_path / "own")))
    assert set(trainer.batches.batch([(0, 0)]).media) == {"chosen"} and "reference" not in trainer.plan.roles
    assert "errors/chosen" in row and not any("rejected" in name or "reference" in name for name in row)

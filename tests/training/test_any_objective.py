"""Pairwise, pointwise, listwise objectives and those of units train by the same method and the same loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from diffpref import methods
from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Candidate, Context, Judgement, Record, Rows, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import read_store, write_store
from diffpref.methods.denoising import Denoising
from diffpref.objectives import objective
from diffpref.plotting.step_grid import step_grid
from diffpref.training import Trainer
from diffpref.training.explain import explain_step
from diffpref.training.plan import make_plan

Keys = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("toy_objectives")

KINDS: dict[str, tuple[Any, str]] = {
    "toy_regressed": ("toy_regressed", "pairs"),
    "toy_labelled": ("toy_labelled", "points"),
    "toy_labels_remembered": ("toy_labels_remembered", "points"),
    "toy_ranked": ("toy_ranked", "lists"),
    "toy_rank_coupled": ("toy_rank_coupled", "lists"),
    "toy_units": ("toy_units", "pairs"),
}
DRAWS = {"denoising": {"draws": 2}}


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


def lasting(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows]


@pytest.mark.parametrize("name", ["toy_regressed", "toy_labels_remembered", "toy_ranked", "toy_units"])
def test_it_trains_and_goes_on_to_the_bit(recipe_keys: Keys, name: str, tmp_path: Path) -> None:
    objective, view = KINDS[name]
    common = {"objective": objective, "method": DRAWS, "optim__learning_rate": 1e-3}
    shape = {"batch_size": 2, "accumulation": 2}
    whole, expected = run(recipe_keys(output=str(tmp_path / "whole"), training={"steps": 3, **shape}, **common))
    assert whole.plan.view == view and set(whole.data_digest) == {view, "content"}
    _, first = run(recipe_keys(training={"steps": 2, **shape}, **common))
    again, rest = run(recipe_keys(training={"steps": 3, **shape}, **common))
    assert lasting(first + rest) == lasting(expected)
    assert torch.equal(weights(again), weights(whole))
    assert {n: t.tolist() for n, t in again.updater.state.items()} == {
        n: t.tolist() for n, t in whole.updater.state.items()
    }
    assert len({row["loss"] for row in expected}) == 3 and expected[-1]["grad_norm"] > 0


@pytest.mark.parametrize("name", ["toy_labelled", "toy_rank_coupled", "toy_units"])
def test_accumulation_changes_nothing(recipe_keys: Keys, name: str, tmp_path: Path) -> None:
    objective, _ = KINDS[name]
    (whole, expected), (other, rows) = (
        run(
            recipe_keys(
                output=str(tmp_path / str(size)),
                objective=objective,
                method=DRAWS,
                optim__learning_rate=1e-3,
                training={"steps": 2, "batch_size": size, "accumulation": 4 // size},
            )
        )
        for size in (4, 1)
    )
    for row, wanted in zip(lasting(rows), lasting(expected), strict=True):
        assert row.keys() == wanted.keys()
        for key in wanted:
            assert row[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-4), key
    assert (weights(other) - weights(whole)).norm() <= 1e-4 * weights(whole).norm()
    for key, value in whole.updater.state.items():
        torch.testing.assert_close(other.updater.state[key], value, rtol=1e-4, atol=1e-6)


def test_the_mismatched_answer_is_another_record_s_drawn_by_key(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(objective="toy_labelled", method="denoising")))
    trainer.setup()
    batches = trainer.batches
    assert batches.groups == ("", "mismatched") and len(batches.items) == 32
    items = [(index, visit) for index in range(8) for visit in range(2)]
    whole = batches.batch(items)
    alone = [batches.batch([item]) for item in items]
    assert torch.equal(whole.media["mismatched"], torch.cat([batch.media["mismatched"] for batch in alone]))
    partners = {}
    for index, visit in items:
        item, (key,) = batches.items[index], batches.keys([(index, visit)])
        place = batches._companion("mismatched", item, key)
        assert place.record != item.record_index
        partners[index, visit] = place
    assert len(set(partners.values())) > 8 and any(partners[i, 0] != partners[i, 1] for i in range(8))
    rows = trainer.plan.method.prepare(whole, trainer.updater.context)
    assert rows.no_grad == {"mismatched"}


def test_a_companion_needs_another_record(recipe_keys: Keys, scored_store: Path, tmp_path: Path) -> None:
    (record, *_) = read_store(scored_store)
    labelled = replace(record, candidates=tuple(replace(c, label=1.0) for c in record.candidates))
    write_store(tmp_path / "one", [labelled])
    keys = recipe_keys(objective="toy_labelled", method="denoising", data={"source": str(tmp_path / "one")})
    with pytest.raises(DataError, match="asks for 'mismatched' samples, answers to another prompt"):
        run(keys)


def test_ragged_lists_are_padded_and_what_is_absent_has_no_say(
    recipe_keys: Keys, scored_store: Path, tmp_path: Path
) -> None:
    records = list(read_store(scored_store))
    shorter = [replace(r, candidates=r.candidates[: 2 + i % 2]) for i, r in enumerate(records)]
    write_store(tmp_path / "ragged", shorter)
    ragged = {"source": str(tmp_path / "ragged"), "score": "oracle"}
    keys = recipe_keys(objective="toy_ranked", method="denoising", data=ragged, training={"steps": 2, "batch_size": 4})
    trainer, rows = run(keys)
    batch = trainer.batches.batch([(index, 0) for index in range(len(trainer.batches.items))])
    there = batch.columns["list_mask"]
    lengths = [len(item.groups["list"]) for item in trainer.batches.items]  # type: ignore[arg-type]
    assert there.sum(dim=1).tolist() == lengths and set(lengths) == {2, 3} and batch.media["list"].shape[1] == 3
    for index, length in enumerate(lengths):
        assert not batch.media["list"][index, length:].any() and not batch.columns["list_scores"][index, length:].any()
    assert all(row["errors/list"] > 0.5 for row in rows)
    with pytest.raises(
        DataError, match="hold 2 to 3 candidates, and the objective toy_rank_coupled reads no list_mask"
    ):
        run(recipe_keys(objective="toy_rank_coupled", method="denoising", data=ragged, output=str(tmp_path / "no")))


def test_the_log_of_a_list_is_the_mean_of_its_candidates(recipe_keys: Keys) -> None:
    keys = recipe_keys(objective="toy_ranked", method="denoising", training={"steps": 1, "batch_size": 4})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    batch = trainer.batches.batch(trainer.next_items())
    rows = trainer.plan.method.prepare(batch, trainer.updater.context)
    with torch.no_grad():
        answers = trainer.roles["policy"](rows)
    errors = trainer.updater.likelihood(["policy_list_errors"], {"policy": answers}, rows)["policy_list_errors"]
    (row,) = list(trainer.steps())
    assert row["errors/list"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert row["errors/list_vs_reference"] == 0.0


@pytest.mark.parametrize("name", ["toy_ranked", "toy_labelled"])
def test_an_update_can_be_explained(recipe_keys: Keys, name: str, scored_store: Path, tmp_path: Path) -> None:
    records = list(read_store(scored_store))
    write_store(tmp_path / "ragged", [replace(r, candidates=r.candidates[: 2 + i % 2]) for i, r in enumerate(records)])
    data = {"source": str(tmp_path / "ragged"), "score": "oracle"}
    shape = {"steps": 2, "batch_size": 2, "accumulation": 2}
    trainer, rows = run(recipe_keys(objective=name, method="denoising", data=data, training=shape))
    view = explain_step(trainer.output, 2)
    assert view.exact and view.loss == rows[1]["loss"] and step_grid(view).width > 0
    told = [{sample.group: sample for sample in one.samples} for one in view.records]
    if name == "toy_labelled":
        assert all(list(one) == ["single", "mismatched"] and "log-ratio" in one["single"].numbers for one in told)
        return
    assert all(list(one) == ["list 0", "list 1", "list 2"] for one in told)
    absent = [one["list 2"].pictures[0] is None for one in told]
    assert 0 < sum(absent) < 4 and all(one["list 0"].numbers["log-ratio"] != 0 for one in told)


def test_good_and_bad_single_samples_are_logged_apart(recipe_keys: Keys, tmp_path: Path) -> None:
    def train(size: int) -> list[dict[str, float]]:
        shape = {"steps": 3, "batch_size": size, "accumulation": 4 // size}
        common = {"objective": "toy_labels_remembered", "method": "denoising", "optim__learning_rate": 1e-3}
        return run(recipe_keys(output=str(tmp_path / str(size)), training=shape, **common))[1]

    rows = train(4)
    trainer = Trainer(build_recipe(recipe_keys(objective="toy_labels_remembered", method="denoising")))
    trainer.setup()
    items = [trainer.batches.sampler.batch(step, 4) for step in range(3)]
    for row, chosen in zip(rows, items, strict=True):
        good = sum(trainer.batches.items[index].columns["label"] for index, _ in chosen)
        kinds = {"chosen": good, "rejected": 4 - good}
        assert {kind for kind in kinds if f"logps/{kind}" in row} == {kind for kind, number in kinds.items() if number}
        mean = sum(row.get(f"logps/{kind}", 0) * number for kind, number in kinds.items()) / 4
        assert mean == pytest.approx(row["logps/single"], rel=1e-5)
        if 0 < good < 4:
            assert row["rewards/margins"] == row["rewards/chosen"] - row["rewards/rejected"]
    assert any("rewards/margins" in row and row["rewards/margins"] != 0 for row in rows)
    for row, wanted in zip(train(1), rows, strict=True):
        assert row.keys() == wanted.keys()
        for name in {"rewards/chosen", "rewards/rejected", "rewards/margins"} & row.keys():
            assert row[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5)


def test_units_are_the_draws(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(objective="toy_units", method={"denoising": {"draws": 3}})))
    trainer.setup()
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0), (1, 0)]), trainer.updater.context)
    outputs = {name: trainer.roles[name](rows) for name in trainer.plan.asked}
    values = trainer.updater.likelihood(trainer.plan.names, outputs, rows)
    assert values["chosen_token_log_ratio"].shape == values["chosen_token_mask"].shape == (2, 3)
    assert values["policy_chosen_errors"].shape == (2,) and rows.draws == 3


def test_scores_beyond_what_an_objective_reads_become_win_rates(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    def scores(objective: str, rule: str | None = None) -> Tensor:
        keys = recipe_keys(objective=objective, method="denoising", **({"data__list_scores": rule} if rule else {}))
        trainer = Trainer(build_recipe(keys))
        trainer.setup()
        found = trainer.batches.batch([(0, 0)]).columns["list_scores"]
        trainer.folder.release()
        return found

    raw, rates = scores("toy_ranked"), scores("toy_ranked", "win_rate")
    assert raw.max() > 1 and "lists get win rates" not in caplog.text and 0 < rates.min() < rates.max() < 1
    with caplog.at_level(logging.INFO):
        assert torch.equal(scores("lipo_lambda"), rates) and torch.equal(scores("toy_ranked", "raw"), raw)
    assert caplog.text.count("are beyond what the objective reads; lists get win rates") == 1


def test_a_method_may_make_columns_that_the_data_lack(recipe_keys: Keys) -> None:
    class Made(Denoising):
        """Makes a scale of beta for each record."""

        makes: ClassVar[frozenset[str]] = frozenset({"beta_scale"})

        def prepare(self, batch: Batch, context: Context) -> Rows:
            rows = super().prepare(batch, context)
            return replace(rows, columns={**rows.columns, "beta_scale": 1.0 + torch.arange(len(batch))})

    def scaled(*, chosen_log_ratio: Tensor, beta_scale: Tensor) -> Tensor:
        return beta_scale * (1 - 1000 * chosen_log_ratio)

    objective("toy_scaled", kind="pairwise", source="ours", evidence="ours")(scaled)
    with pytest.raises(DataError, match="need the columns beta_scale; the data give"):
        run(recipe_keys(objective="toy_scaled", method="denoising"))
    methods.registry.register("toy_made")(Made)
    try:
        keys = recipe_keys(
            objective="toy_scaled", method="toy_made", training={"steps": 2, "batch_size": 2, "accumulation": 2}
        )
        _, rows = run(keys)
        keys["output"] += "-replayed"
        keys["training"]["replay"] = "always"
        _, again = run(keys)
    finally:
        del methods.registry._things["toy_made"], methods.registry._origins["toy_made"]
    assert rows[0]["loss"] == 1.5 == again[0]["loss"] and rows[1]["loss"] == pytest.approx(again[1]["loss"], rel=1e-5)


def told(keys: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(build_recipe(keys))
    return str(caught.value)


def test_what_does_not_go_together_is_told_before_anything_is_loaded(recipe_keys: Keys) -> None:
    lists = told(recipe_keys(objective="toy_ranked"))
    assert lists == "objective: needs list samples; method 'diffusion_dpo' prepares chosen, rejected"
    points = told(recipe_keys(objective="toy_labelled"))
    assert points == "objective: needs mismatched, single samples; method 'diffusion_dpo' prepares chosen, rejected"
    both = told(recipe_keys(objective=["dpo", "toy_ranked"], method="denoising"))
    assert both.startswith("objective: no data hold chosen, list, rejected samples together; there are pairs: chosen")


@pytest.mark.parametrize(
    ("objective", "record", "message"),
    [
        ("toy_ranked", {"score": "oracle", "number": 1}, r"none has more than one candidate \(K = 1\)"),
        ("toy_ranked", {}, "0 judgements rank no two candidates; to rank by a score, name one: oracle"),
        ("toy_labelled", {}, r"no candidate has a label \(0 or 1\), which an objective of single samples needs"),
        ("dpo", {}, "to pair by a score, name one: oracle"),
        ("dpo", {"label": 1.0}, "candidates carry labels of their own, which an objective of single samples reads"),
        ("dpo", {"probability": 1.5}, "not a judgement of its candidates: .*probability=1.5"),
    ],
)
def test_data_that_do_not_fit_the_objective_are_told_before_a_model_is_loaded(
    recipe_keys: Keys, tmp_path: Path, scored_store: Path, objective: str, record: dict[str, Any], message: str
) -> None:
    records = []
    for one in read_store(scored_store):
        candidates = tuple(replace(c, label=record.get("label")) for c in one.candidates[: record.get("number", 3)])
        judged = (Judgement(0, 1, record["probability"]),) if "probability" in record else ()
        records.append(replace(one, candidates=candidates, judgements=judged))
    write_store(tmp_path / "other", records)
    data = {"source": str(tmp_path / "other"), "score": record.get("score")}
    with pytest.raises(DataError, match=message):
        run(recipe_keys(objective=objective, method="denoising", data=data, model__path="/nowhere"))


def test_labels_of_candidates_train(recipe_keys: Keys, scored_store: Path, tmp_path: Path) -> None:
    records: list[Record] = []
    for one in read_store(scored_store):
        labels = [1.0, 0.0, None]
        made: list[Candidate] = [replace(c, label=label) for c, label in zip(one.candidates, labels, strict=True)]
        records.append(replace(one, candidates=tuple(made)))
    write_store(tmp_path / "labelled", records)
    data = {"source": str(tmp_path / "labelled")}
    trainer, rows = run(recipe_keys(objective="toy_labels_remembered", method="denoising", data=data))
    assert len(trainer.batches.items) == 32 and len(rows) == 3
    batch = trainer.batches.batch([(0, 0), (1, 0)])
    assert batch.columns["label"].tolist() == [1.0, 0.0] and set(batch.media) == {""}


def test_win_rates_follow_the_scale_of_the_scores(recipe_keys: Keys, scored_store: Path) -> None:
    def rates(scale: float) -> tuple[float, float]:
        keys = recipe_keys(objective="toy_regressed", method="denoising", data__score_scale=scale)
        trainer = Trainer(build_recipe(keys))
        trainer.setup()
        columns = trainer.batches.batch([(0, 0)]).columns
        trainer.folder.release()
        return columns["chosen_win_rate"].item(), columns["rejected_win_rate"].item()

    (first, *_) = read_store(scored_store)
    assert all(isinstance(s, Score) for c in first.candidates for s in c.scores)
    wide, narrow = rates(100.0), rates(0.01)
    assert wide[0] > narrow[0] > 0.5 > narrow[1] > wide[1]

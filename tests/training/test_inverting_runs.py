"""Methods that invert, in runs: with a bank, under replay, by two processes, on data whose scores have a range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.models import registry as families
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
FEW = {"num_steps": 3, "landing": "exact"}


def fit(keys: dict[str, Any]) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    return trainer


def test_a_bank_holds_what_the_reference_says_of_its_own_inversion(recipe_keys: Keys, tmp_path: Path) -> None:
    keys = recipe_keys(
        method={"ddim_inpo": {**FEW, "inverter": "reference"}},
        bank={"slots": 1, "folder": str(tmp_path / "bank")},
        training={"steps": 8, "batch_size": 4},
    )
    trainer = fit(keys)
    # 16 pairs in two epochs of another order: the second finds all rows again
    assert trainer.banked["reference"].counts == {"asked": 32, "read": 32}
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert rows[0]["rewards/margins"] == 0 and all(row["grad_norm"] > 0 for row in rows)


def test_a_bank_is_refused_where_the_policy_inverts_before_anything_is_loaded(recipe_keys: Keys) -> None:
    with pytest.raises(
        ConfigError, match=r"bank\.slots: must be 0, got 2: the policy inverts, .*inverter: reference\)"
    ):
        Trainer(build_recipe(recipe_keys(method="smpo_diffusion", bank={"slots": 2})))


def test_the_range_of_the_data_s_scores_weighs_the_pairs(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method={"smpo_diffusion": {**FEW, "gamma": 3.0}})))
    trainer.prepare()
    method: Any = trainer.plan.method
    items = trainer.batches.items
    scores = [item.columns[name] for item in items for name in ("chosen_score", "rejected_score")]
    assert method.score_range == pytest.approx(max(scores) - min(scores)) and trainer.updater.plan is trainer.plan
    batch = trainer.batches.batch([(0, 0), (1, 0)])
    weight = method.prepare(batch, trainer.updater.context).columns["beta_scale"]
    gap = batch.columns["chosen_score"] - batch.columns["rejected_score"]
    torch.testing.assert_close(weight, 3 * (gap / (2 * method.score_range)).tanh())
    assert bool((weight > 0).all())


def test_replay_asks_under_guidance_and_not_again_what_was_answered(recipe_keys: Keys, tmp_path: Path) -> None:
    families.get("sdxl").tiny(seed=1).pipeline().save_pretrained(tmp_path / "other")
    found = []
    for replay in ("auto", "always"):
        keys = recipe_keys(
            output=str(tmp_path / replay),
            method={"inversion_dpo": {"num_steps": 3}},
            objective={"inversion_dpo": {"beta": 5.0}},
            roles={"reference": {"source": "path", "path": str(tmp_path / "other")}},
            training={"steps": 1, "batch_size": 2, "replay": replay},
        )
        found.append(read_metrics(fit(keys).output / "metrics.jsonl")[0])
    assert found[0]["grad_norm"] > 0
    for name in ("loss", "grad_norm"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5)


def test_inversion_dpo_from_a_copy_of_the_reference_is_refused_at_its_first_update(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match="learns nothing where the policy begins as the reference; start from a LoRA"):
        fit(recipe_keys(method={"inversion_dpo": {"num_steps": 2}}))


@pytest.mark.slow
def test_two_processes_make_the_same_calls_and_are_one_with_twice_the_batch(
    recipe_keys: Keys, run_together: Callable[..., Any], tmp_path: Path
) -> None:
    method = {"smpo_diffusion": {"num_steps": 8, "landing": "exact"}}
    shape = {"steps": 4, "batch_size": 1}
    common = {"method": method, "objective": {"smpo_diffusion": {"beta": 20, "weight_from": "beta_scale"}}}
    ways = ("ddp", "fsdp2")
    made = {way: recipe_keys(output=str(tmp_path / way), training=shape, **common) for way in ways}
    fit(recipe_keys(output=str(tmp_path / "one"), training={"steps": 4, "batch_size": 2}, **common))
    found = run_together([("inversions", {"keys": made[way]}, way) for way in ways])
    wanted = read_metrics(tmp_path / "one" / "metrics.jsonl")
    for number, way in enumerate(ways):
        first, second = (process[number]["value"] for process in found)
        assert first["calls"] == second["calls"], way
        steps = [max(pair) for pair in zip(first["steps"], second["steps"], strict=True)]
        # ReNoise asks twice a step; then come the reference and the policy
        assert first["calls"] == [2 * step + 2 for step in steps], way
        assert first["steps"] != second["steps"], way
        rows = read_metrics(tmp_path / way / "metrics.jsonl")
        for row, expected in zip(rows, wanted, strict=True):
            for name in ("loss", "grad_norm", "rewards/margins"):
                assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (way, row["step"], name)

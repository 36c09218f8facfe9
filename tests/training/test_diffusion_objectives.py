"""The diffusion papers' objectives train SDXL by name, and say what they miss before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Conditioning
from diffpref.core.errors import ConfigError
from diffpref.objectives import compose
from diffpref.training import Trainer
from diffpref.training.forward import judge

Keys = Callable[..., dict[str, Any]]
LN2 = math.log(2)
FIRST: dict[str, Callable[[dict[str, float]], float]] = {
    "ddim_inpo": lambda row: LN2,
    "smpo_diffusion": lambda row: LN2,
    "seppo": lambda row: LN2,
    "video_dpo_omniscore_script": lambda row: LN2,
    "dspo": lambda row: row["errors/chosen"],
    "crpo": lambda row: LN2 + row["errors/chosen"],
    "diffusion_dpo_hinge": lambda row: 1.0,
    "diffusion_kto": lambda row: 0.5,
    "diffusion_kto_mismatched": lambda row: 0.5,
}
"""The loss of the first step, where policy and reference agree."""


@pytest.mark.parametrize("name", [*FIRST, "mapo", "rank_dpo", "curated_retraining"])
def test_it_trains_by_name(recipe_keys: Keys, name: str) -> None:
    named: Any = [{name: {"labels": "win_shares"}}] if name == "rank_dpo" else name
    trainer = Trainer(build_recipe(recipe_keys(objective=named, method="denoising", training={"steps": 1})))
    (row,) = list(trainer.steps())
    assert row["grad_norm"] > 0 and math.isfinite(row["loss"])
    assert ("reference" in trainer.plan.roles) == (name not in ("mapo", "curated_retraining"))
    if name in FIRST:
        assert row["loss"] == pytest.approx(FIRST[name](row), rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        ("dense_dpo", ConfigError, "segment"),
        ("inversion_dpo", ConfigError, "segment_kl; a segment of it is a point of an inverted trajectory"),
        ({"flow_dpo": {"beta_schedule": "one_minus_t_sq"}}, ConfigError, r"needs timesteps in \[0, 1\]"),
        ("diffusion_nft", ConfigError, "behaviour"),
    ],
)
def test_what_a_still_picture_cannot_give_is_told(
    recipe_keys: Keys, objective: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(Trainer(build_recipe(recipe_keys(objective=[objective], method="denoising"))).steps())


def test_a_weight_that_an_objective_reads_is_not_multiplied_again() -> None:
    composition = compose([("vdpo", {}), ("dpo", {})])
    plan: Any = SimpleNamespace(composition=composition, groups=("chosen", "rejected"), view="pairs")
    ratios = {"chosen_log_ratio": torch.tensor([0.1, 0.2]), "rejected_log_ratio": torch.zeros(2)}
    weight = torch.tensor([0.5, 2.0])
    forward = judge(plan, ratios, {"weight": weight})
    plain = judge(plan, ratios, {})
    assert forward.weights.tolist() == [2.0, 2.5] and plain.weights.tolist() == [2.0, 2.0]
    for sums in forward.sums:
        torch.testing.assert_close(sums, (weight * plain.losses[0]).sum())


def test_averaged_draws_have_no_timestep_of_their_own(recipe_keys: Keys) -> None:
    from diffpref.methods.denoising import Denoising

    trainer = Trainer(build_recipe(recipe_keys(method="denoising")))
    trainer.setup()
    batch: Batch = trainer.batches.batch([(0, 0), (1, 0)])
    assert isinstance(batch.conditioning[""], Conditioning)
    one, several = (Denoising(draws=n).prepare(batch, trainer.updater.context) for n in (1, 2))
    assert torch.equal(one.columns["timesteps"], one.inputs["timesteps"][:2])
    assert "timesteps" not in several.columns
    trainer.folder.release()

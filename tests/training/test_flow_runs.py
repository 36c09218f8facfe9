"""A flow transformer trains through the same trainer: any pairwise objective, exact resume, results for diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.models import load_family, registry
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
FULL = {"kind": "full"}


@pytest.fixture(scope="module")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    registry.get("sd3").tiny().pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def flow_keys(recipe_keys: Keys, tiny_sd3: Path) -> Keys:
    """Recipes of the tiny SD3; prompts of 8 tokens, because T5's 256 are most of the work."""
    model = {"family": "sd3", "path": str(tiny_sd3), "max_sequence_length": 8}
    return lambda **changes: recipe_keys(model={**model, **changes.pop("model", {})}, **changes)


def fit(keys: dict[str, Any]) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    return trainer


@pytest.mark.parametrize("objective", ["dpo", "ipo", "simpo"])
@pytest.mark.parametrize("adapter", [{}, FULL], ids=["lora", "full"])
def test_a_pairwise_objective_trains_sd3(flow_keys: Keys, objective: str, adapter: dict[str, Any]) -> None:
    trainer = fit(flow_keys(method="diffusion_dpo", objective=objective, adapter=adapter))
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert len(rows) == 3 and all(0 < row["grad_norm"] < float("inf") for row in rows)
    if objective == "dpo":  # policy and reference are one model before the first update
        assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6) and rows[0]["rewards/margins"] == 0


def test_beta_may_follow_the_noise_level_of_a_flow(flow_keys: Keys, tmp_path: Path) -> None:
    losses = []
    for schedule in ("constant", "one_minus_t_sq"):
        objective = {"flow_dpo": {"beta": 100, "beta_schedule": schedule}}
        keys = flow_keys(method="flow_dpo", objective=objective, output=str(tmp_path / schedule))
        losses.append(
            [row["loss"] for row in Trainer(build_recipe({**keys, "optim": {"learning_rate": 1e-3}})).steps()]
        )
    assert losses[0][0] == losses[1][0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[0][1:] != losses[1][1:]


@pytest.mark.parametrize(
    "method",
    [{"denoising": {"draws": 2}}, {"video_dpo_omniscore": {"weigh_rare": False, "share_timestep": False}}],
    ids=str,
)
def test_beta_cannot_follow_several_noise_levels_of_a_pair(flow_keys: Keys, method: dict[str, Any]) -> None:
    objective = {"flow_dpo": {"beta_schedule": "one_minus_t_sq"}}
    with pytest.raises(ConfigError, match="asked at one for each pair; set beta_schedule: constant"):
        Trainer(build_recipe(flow_keys(method=method, objective=objective))).setup()


def test_stopping_and_going_on_gives_the_same_bits(flow_keys: Keys, tmp_path: Path) -> None:
    shape = {"steps": 6, "batch_size": 2, "checkpoint_every": 2}
    straight = fit(flow_keys(output=str(tmp_path / "straight"), training=shape))
    fit(flow_keys(output=str(tmp_path / "parts"), training={**shape, "steps": 4}))
    resumed = fit(flow_keys(output=str(tmp_path / "parts"), training=shape))
    first, second = (load_file(next((t.output / "lora").glob("*.safetensors"))) for t in (straight, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool(tensor.any()) for name, tensor in first.items() if "lora_B" in name)


def test_plain_diffusers_reproduces_a_lora_and_a_whole_network(flow_keys: Keys, tiny_sd3: Path, tmp_path: Path) -> None:
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    asked = {"noisy": noisy, "timesteps": torch.tensor([0.9, 0.2])}
    family = load_family("sd3", str(tiny_sd3))
    told = family.encode_prompt(["a red circle", ""], 64)

    def answer(network: Any) -> torch.Tensor:
        with torch.no_grad():
            return family.forward(network.eval(), asked, told)

    start = answer(family.network)
    for adapter in ({"rank": 4, "alpha": 8}, FULL):
        output = tmp_path / adapter.get("kind", "lora")
        trainer = fit(flow_keys(output=str(output), adapter=adapter, optim={"learning_rate": 1e-2}))
        trained = answer(trainer.family.network)
        pipeline = StableDiffusion3Pipeline.from_pretrained(tiny_sd3)
        if adapter is FULL:
            pipeline.transformer = SD3Transformer2DModel.from_pretrained(output / "model")
        else:
            pipeline.load_lora_weights(output / "lora")
        torch.testing.assert_close(answer(pipeline.transformer), trained, rtol=0, atol=1e-6)
        assert (trained - start).abs().max() > 1e-4


def test_recomputing_blocks_changes_no_gradient(flow_keys: Keys, tmp_path: Path) -> None:
    found = []
    for level in (False, True, "every_second"):
        trainer = fit(flow_keys(output=str(tmp_path / str(level)), model={"gradient_checkpointing": level}))
        found.append(read_metrics(trainer.output / "metrics.jsonl")[-1]["grad_norm"])
    assert found[1] == pytest.approx(found[0], rel=1e-5) and found[2] == pytest.approx(found[0], rel=1e-5)


def test_the_density_of_timesteps_is_the_recipes(flow_keys: Keys, tmp_path: Path) -> None:
    losses = {}
    for kind in ("auto", "logit_normal", "uniform", "mode"):
        keys = flow_keys(output=str(tmp_path / kind), method="sft", likelihood={"timesteps": kind})
        losses[kind] = read_metrics(fit(keys).output / "metrics.jsonl")[0]["loss"]
    assert losses["auto"] == losses["logit_normal"] and len(set(losses.values())) == 3


def test_what_is_for_other_families_is_told(flow_keys: Keys, recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match="timestep_rule: 'turbo' is for chains"):
        fit(flow_keys(method={"diffusion_dpo": {"timestep_rule": "turbo"}}))
    keys = recipe_keys()
    with pytest.raises(ConfigError, match="max_sequence_length: 'sdxl' has no T5"):
        fit({**keys, "model": {**keys["model"], "max_sequence_length": 8}})

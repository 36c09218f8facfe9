"""The average of the policy: it changes no update, leaves a second result that diffusers loads, and draws pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from diffpref.config import build_recipe
from diffpref.evaluation.validation import ValidationPictures
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
LORA, FULL = {"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"}


def run(keys: dict[str, Any]) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    return trainer


def losses(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in read_metrics(trainer.output / "metrics.jsonl")]


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_the_average_changes_no_update_and_is_exported_beside_the_result(
    recipe_keys: Keys, tmp_path: Path, tiny_sdxl: Path, adapter: dict[str, Any]
) -> None:
    common = {"adapter": adapter, "optim": {"learning_rate": 1e-2}}
    without = run(recipe_keys(output=str(tmp_path / "without"), **common))
    keys = recipe_keys(output=str(tmp_path / "with"), **common, training__ema={"decay": 0.6, "warmup": False})
    trainer = run(keys)
    assert losses(trainer) == losses(without)
    folder = trainer.plan.adapter.folder
    result, before = (next((t.output / folder).glob("*.safetensors")) for t in (trainer, without))
    assert result.read_bytes() == before.read_bytes() and not (without.output / f"{folder}_ema").exists()
    average = trainer.moving.average
    assert average is not None
    exported = trainer.output / f"{folder}_ema"
    if adapter is FULL:
        loaded = UNet2DConditionModel.from_pretrained(exported).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in average.tensors.items())
        return
    saved = load_file(next(exported.glob("*.safetensors")))
    assert {name.removeprefix("unet."): t for name, t in saved.items()}.keys() == average.tensors.keys()
    assert all(torch.equal(saved[f"unet.{name}"], tensor) for name, tensor in average.tensors.items())
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.load_lora_weights(exported)
    assert pipeline.get_list_adapters() == {"unet": ["default_0"]}


def test_pictures_may_be_drawn_with_the_average(recipe_keys: Keys) -> None:
    how = {"prompts": ["a red circle"], "every": 3, "num_inference_steps": 2, "ema": True}
    keys = recipe_keys(optim={"learning_rate": 1e-1}, training__ema={"decay": 0.9}, validation=how)
    trainer = Trainer(build_recipe(keys))
    drawn: dict[str, Any] = {}

    class Both(ValidationPictures):
        def on_step(self, trainer: Any, step: int, metrics: Any) -> None:
            if step != 3:
                return
            weights = {name: tensor.clone() for name, tensor in trainer.moving.average.policy.items()}
            for ema in (True, False):
                self.settings = trainer.recipe.validation.model_copy(update={"ema": ema})
                self.draw(trainer, step)
                data = (trainer.output / "samples/step-000003.png").read_bytes()
                drawn[str(ema)] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert all(torch.equal(weights[name], t) for name, t in trainer.moving.average.policy.items())

    trainer.callbacks = (Both(trainer.recipe.validation),)
    trainer.fit()
    assert drawn["True"].shape == drawn["False"].shape and (drawn["True"] != drawn["False"]).any()

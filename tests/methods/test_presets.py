"""The bundled presets of diffusion_dpo: they load, their parts fit, and they say what was published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import diffpref
from diffpref.config import load_recipe, recipe_names
from diffpref.core.errors import DataError
from diffpref.data import open_records
from diffpref.likelihood import convert_beta
from diffpref.methods import registry
from diffpref.models import registry as families
from diffpref.objectives import compose
from diffpref.schedules import DiscreteSchedule

FOLDER = Path(diffpref.__file__).parent / "recipes"
PRESETS = [name for name in recipe_names() if name.split("/")[1].startswith("diffusion_dpo")]
PUBLISHED = {
    # name: pairs an update on the header's GPUs, learning rate, steps, warm-up, resolution, caption dropout, rule
    "sd15/diffusion_dpo": (2048, 2.048e-5, 2000, 500, 512, 0.2, "uniform"),
    "sd15/diffusion_dpo_lora": (32, 1e-5, 10000, 0, 512, 0.0, "uniform"),
    "sd21/diffusion_dpo": (2048, 2.048e-5, 2000, 500, 768, 0.2, "uniform"),
    "sdxl/diffusion_dpo": (2048, 2.048e-5, 2000, 200, 1024, 0.2, "uniform"),
    "sdxl/diffusion_dpo_lora": (16, 1e-5, 2000, 0, 1024, 0.0, "uniform"),
    "sdxl_turbo/diffusion_dpo": (2048, 2.048e-5, 2000, 200, 512, 0.0, "turbo"),
    "sdxl_refiner/diffusion_dpo": (2048, 2.048e-5, 2000, 200, 1024, 0.2, "refiner"),
}


def processes(name: str) -> int:
    found = re.search(r"--num_processes (\d+)", (FOLDER / f"{name}.yaml").read_text())
    assert found
    return int(found[1])


def test_every_preset_is_checked_here() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_what_was_published(name: str) -> None:
    recipe = load_recipe(name)
    method = recipe.method.validate_with(registry.get(recipe.method.name), "method")
    pairs = processes(name) * recipe.training.batch_size * recipe.training.accumulation
    optim, training = recipe.optim, recipe.training
    assert (
        pairs,
        optim.learning_rate,
        training.steps,
        optim.warmup_steps,
        recipe.data.resolution,
        method.empty_prompt_prob,
        method.timestep_rule,
    ) == PUBLISHED[name]
    (term,) = compose([(named.name, named.options) for named in recipe.objective or ()]).terms
    assert (term.spec.name, term.options.beta) == ("dpo", 5000)
    assert (optim.betas, optim.weight_decay, optim.eps, optim.schedule) == ((0.9, 0.999), 1e-2, 1e-8, "constant")
    assert recipe.model.family in families
    assert recipe.data.random_flip and not recipe.data.random_crop
    assert recipe.adapter.kind == ("lora" if name.endswith("_lora") else "full")
    if recipe.adapter.kind == "lora":
        assert recipe.adapter.rank == 8 and recipe.adapter.alpha in (None, 8)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_gives_the_command(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert f"-m diffpref.train {name} --data.source FOLDER" in "\n".join(lines[:5])
    recipe = load_recipe(name, {"data.source": "somewhere"})
    assert recipe.data.source == "somewhere"
    assert f"--mixed_precision {recipe.model.precision} " in "\n".join(lines[:5])


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_data_the_error_says_how_to_give_them(name: str) -> None:
    with pytest.raises(DataError, match=r"give-the-folder-of-your-pairs-with---data\.source: no such file or folder"):
        open_records(load_recipe(name).data.source)


@pytest.mark.parametrize(("name", "nats"), [("sd15/diffusion_dpo", "0.0234"), ("sdxl/diffusion_dpo", "0.0058")])
def test_the_comments_on_what_beta_absorbs_are_true(name: str, nats: str) -> None:
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    schedule = DiscreteSchedule.from_config(config)
    text = (FOLDER / f"{name}.yaml").read_text().replace("\n  #", "")
    assert f"5000 is {nats} in the units of text DPO" in text
    elements = 4 * ((load_recipe(name).data.resolution or 0) // 8) ** 2
    official = convert_beta(5000, source="official", target="nats", num_elements=elements, schedule=schedule)
    assert f"{official:.4f}" == nats
    assert schedule.alpha(torch.tensor([999])).pow(-2).item() == pytest.approx(214.6, abs=0.2)  # sd21 says 200 times

"""The bundled presets of methods that draw samples, or judge single ones: what was published, and that they run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import diffpref
from diffpref.config import Recipe, load_recipe
from diffpref.methods import registry
from diffpref.models import registry as families
from diffpref.objectives import compose
from diffpref.training import Trainer

FOLDER = Path(diffpref.__file__).parent / "recipes"
PUBLISHED: Mapping[str, tuple[Any, ...]] = {
    # name: records an update on the header's GPUs, beta, learning rate, steps, warm-up
    "sd15/seppo": (2048, 2000, 2.05e-5, 210, 20),
    "animatediff/seppo": (64, 2000, 1e-5, 210, 20),
    "unet3d/seppo": (64, 2000, 1e-5, 210, 20),
    "sd15/diffusion_kto": (8, 2000, 1e-7, 20000, 200),
    "sd35/diffusion_nft": (1152, 1.0, 3e-4, 1000, 0),
}
FORWARDS = {
    "sd15/seppo": 104,
    "animatediff/seppo": 54,
    "unet3d/seppo": 54,
    "sd15/diffusion_kto": 2,
    "sd35/diffusion_nft": 37,
}
"""Of the denoiser, for each record of an update."""


def header(name: str) -> str:
    text = (FOLDER / f"{name}.yaml").read_text().split("\noutput:")[0]
    return " ".join(line.lstrip("# ") for line in text.splitlines())


def records(name: str, recipe: Recipe) -> int:
    found = re.search(r"--num_processes (\d+)", header(name))
    assert found
    return int(found[1]) * recipe.training.batch_size * recipe.training.accumulation


def method_of(recipe: Recipe) -> Any:
    return recipe.method.validate_with(registry.get(recipe.method.name), "method")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_what_was_published(name: str) -> None:
    recipe = load_recipe(name)
    (term,) = compose([(named.name, named.options) for named in recipe.objective or ()]).terms
    told = (records(name, recipe), term.options.beta, recipe.optim.learning_rate, recipe.training.steps)
    assert (*told, recipe.optim.warmup_steps) == PUBLISHED[name]
    assert recipe.optim.max_grad_norm == 1.0 and recipe.optim.schedule == "constant"
    method = method_of(recipe)
    if recipe.method.name == "seppo":
        assert (method.snapshot_every, method.num_snapshots, method.draw) == (30, 7, "uniform")
        assert recipe.training.steps == method.snapshot_every * method.num_snapshots
        assert (term.options.aaf, term.options.zero_sign) == ("sign", 1)
    elif recipe.method.name == "diffusion_kto":
        assert (method.empty_prompt_prob, recipe.data.positive_share, recipe.data.mixed_labels) == (0.2, 0.8, "good")
        assert (term.options.halo, term.options.kl_mode) == ("sigmoid", "none")
    else:
        assert (method.group_size, method.num_inference_steps, method.guidance_scale) == (24, 10, 1.0)
        assert records(name, recipe) == 48 * method.group_size
        assert (term.options.kl_beta, term.options.adv_clip_max, recipe.optim.weight_decay) == (1e-4, 5.0, 1e-4)
        behaviour = method.roles["behaviour"].update
        assert (behaviour.decay, behaviour.ramp, behaviour.flat) == (0.5, 0.001, 0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_gives_the_command_and_the_cost(name: str) -> None:
    recipe, told = load_recipe(name), header(name)
    assert f"--mixed_precision {recipe.model.precision} -m diffpref.train {name} --data.source F" in told
    method, size = method_of(recipe), records(name, recipe)
    forwards = 2.0 if recipe.method.name == "diffusion_kto" else 4.0
    if recipe.method.name == "seppo":
        forwards += 2 * method.num_inference_steps
    elif recipe.method.name == "diffusion_nft":
        forwards = method.num_inference_steps + 3 * int(method.num_inference_steps * method.timestep_share)
    assert forwards == FORWARDS[name]
    whole = forwards * size * recipe.training.steps
    numbers = {f"{whole / 1e6:.1f} million", f"{whole / 1e3:.0f} thousand"}
    assert any(number in told for number in numbers), numbers


@pytest.mark.parametrize("name", ["sd15/seppo", "sd35/diffusion_nft"])
def test_a_preset_runs_at_toy_size(name: str, scored_store: Path, tmp_path: Path) -> None:
    """With another size, path and number of steps only."""
    own = load_recipe(name)
    family: Any = families.get(own.model.family)
    family.tiny().pipeline().save_pretrained(tmp_path / "model")
    options = {**own.method.options, "num_inference_steps": 2}
    if name == "sd35/diffusion_nft":
        options |= {"group_size": 2, "rewards": [{"jpeg": {"output": "incompressibility"}}]}
    recipe = load_recipe(
        name,
        {
            "output": str(tmp_path / "run"),
            "model.path": str(tmp_path / "model"),
            "model.precision": "fp32",
            "model.max_sequence_length": 8 if own.model.family == "sd3" else None,
            "data.source": "shapes:seen:8" if name == "sd35/diffusion_nft" else str(scored_store),
            "data.score": None if name == "sd35/diffusion_nft" else "oracle",
            "data.resolution": 64,
            "method": {own.method.name: options},
            "optim.warmup_steps": 0,
            "training.steps": 2,
            "training.batch_size": 2,
            "training.accumulation": 1,
        },
    )
    rows = list(Trainer(recipe).steps())
    assert len(rows) == 2 and all(row["grad_norm"] > 0 and row["collect/forwards"] > 0 for row in rows)

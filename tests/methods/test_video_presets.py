"""The presets of videos, and of Flow-DPO, say what was published, name data and cost, and run at toy size."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpref
from diffpref.config import load_recipe, load_yaml, recipe_names
from diffpref.config.recipe import find_recipe
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import DataError
from diffpref.core.media import Clip
from diffpref.data import write_store
from diffpref.data.clips import encode_clip
from diffpref.generation import GenerationRecipe
from diffpref.methods import registry
from diffpref.models import registry as families
from diffpref.objectives import compose
from diffpref.training import Trainer

FOLDER = Path(diffpref.__file__).parent / "recipes"
DENSE = (500, 1e-5, 256, 1000, 250, 128, 1e-2)
PUBLISHED: dict[str, tuple[Any, ...]] = {
    # name: objective, beta, learning rate, pairs an update on the header's GPUs, steps, warm-up, rank, weight decay
    "unet3d/video_dpo": ("flow_dpo", *DENSE),
    "unet3d/structural_dpo": ("flow_dpo", *DENSE),
    "unet3d/dense_dpo": ("dense_dpo", *DENSE),
    "animatediff/video_dpo": ("flow_dpo", *DENSE),
    "animatediff/dense_dpo": ("dense_dpo", *DENSE),
    "unet3d/video_dpo_omniscore": ("video_dpo_omniscore", 5000, 6e-6, 8, 2000, 0, 16, 1e-2),
    "sd35/flow_dpo": ("flow_dpo", 100, 3e-4, 64, 1000, 0, 32, 1e-4),
}
METHODS = ("video_dpo", "flow_dpo", "dense_dpo", "structural_dpo", "video_dpo_omniscore")
FORWARDS = 4
"""Of policy and reference on both sides of a pair."""


def header(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line[0] == "#", lines))


def test_every_preset_is_checked_here() -> None:
    assert {name for name in recipe_names() if name.split("/")[-1] in METHODS} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_what_was_published(name: str) -> None:
    recipe, told = load_recipe(name), header(name)
    (term,) = compose([(named.name, named.options) for named in recipe.objective or ()]).terms
    optim, training = recipe.optim, recipe.training
    processes = re.search(r"--num_processes (\d+)", told)
    assert processes
    pairs = int(processes[1]) * training.batch_size * training.accumulation
    assert (
        term.spec.name,
        term.options.beta,
        optim.learning_rate,
        pairs,
        training.steps,
        optim.warmup_steps,
        recipe.adapter.rank,
        optim.weight_decay,
    ) == PUBLISHED[name]
    assert (optim.betas, optim.max_grad_norm, optim.schedule) == ((0.9, 0.999), 1.0, "constant")
    kind = registry.get(recipe.method.name)
    assert recipe.method.validate_with(kind, "method") == kind()
    if term.spec.name == "dense_dpo":
        assert (term.options.reduction, term.options.min_non_tie) == ("frame_mean", 0.2)
    if name == "sd35/flow_dpo":
        assert (recipe.adapter.alpha, recipe.likelihood.timesteps) == (64, "logit_normal")
        assert (recipe.likelihood.logit_mean, recipe.likelihood.logit_std) == (0.0, 1.0)
        assert recipe.training.ema.decay is not None and term.options.beta_schedule == "constant"
    forwards = FORWARDS * pairs * training.steps
    totals = (f"{forwards / 1e6:.1f} million", f"{forwards // 1000} thousand")
    assert f"{FORWARDS} forwards a pair" in told and any(f"{total} forwards in all" in told for total in totals)
    assert f"--mixed_precision {recipe.model.precision} -m diffpref.train {name} --data.source FOLDER" in told
    if name.split("/")[1] in ("dense_dpo", "structural_dpo"):
        assert "diffpref generate data/guided_clips --ground_truth" in told
        assert "diffpref score PAIRS --rewards NAME --segments 1 --output FOLDER" in told


def test_guided_clips_are_drawn_as_published_and_cost_what_the_header_says() -> None:
    recipe = GenerationRecipe.model_validate({"output": "x", **load_yaml(find_recipe("data/guided_clips"))})
    assert (recipe.candidates, recipe.strengths, recipe.num_inference_steps) == (2, [0.65, 0.8], 40)
    assert recipe.guidance_scales == [8.0] and recipe.beginning == "dense_dpo"
    few, many = (math.floor(strength * recipe.num_inference_steps + 0.5) for strength in recipe.strengths)
    told = header("data/guided_clips")  # guidance asks twice a step
    assert f"{2 * few} to {2 * many} forwards a clip ({few} to {many} steps under guidance)" in told
    assert f"{2 * (few + many)} a pair on average" in told


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Guided pairs of clips with scores and judged parts, as the presets read them."""
    draw = np.random.default_rng(0)

    def clip() -> Candidate:
        shown = Clip(draw.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), 8.0)
        scores = tuple(Score(name, "1", float(draw.random())) for name in ("frame_mean", "flicker", "motion"))
        return Candidate(bytes=encode_clip(shown), scores=scores)

    times = ((1.0, 0.0, 0.5), (0.0, 0.5, 0.75), (1.0, 0.75, 1.0))
    parts = tuple(Judgement(0, 1, first, start=start, end=end) for first, start, end in times)
    folder = tmp_path_factory.mktemp("clips") / "store"
    sides = [(clip(), clip()) for _ in range(4)]
    write_store(folder, [Record(f"r{n}", f"clip {n}", two, parts, source="guided") for n, two in enumerate(sides)])
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith("animatediff") else n for n in PUBLISHED]
)
def test_two_steps_on_the_tiny_family_cost_what_the_header_says(
    name: str, data: Path, scored_store: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    kind: Any = families.get(recipe.model.family)
    kind.tiny().pipeline().save_pretrained(tmp_path / "model")
    clips = kind.samples == "videos"
    changes: dict[str, Any] = {
        "model.path": str(tmp_path / "model"),
        "data.source": str(data if clips else scored_store),
        "output": str(tmp_path / "run"),
        "data.resolution": 64,
        "training.steps": 2,
        "training.batch_size": 2,
        "training.accumulation": 1,
    }
    changes |= {"data.num_frames": 4} if clips else {"model.max_sequence_length": 8, "data.score": "oracle"}
    if recipe.model.precision == "fp16":
        changes["model.precision"] = "fp32"  # else the scale of the loss is still being found
    trainer = Trainer(load_recipe(name, changes))
    trainer.setup()
    asked: list[int] = []

    def counted(role: Any) -> Any:
        return lambda rows, grad=False: asked.append(len(rows.inputs["noisy"])) or role(rows, grad)

    trainer.roles.update({one: counted(role) for one, role in trainer.roles.items()})
    rows = list(trainer.steps())
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) and 0 < row["grad_norm"] < math.inf for row in rows)
    assert sum(asked) == 2 * 2 * FORWARDS
    assert trainer.moving.placed["reference"].complaint() is None  # it did not move


def test_without_data_the_error_says_how_to_give_them() -> None:
    with pytest.raises(DataError, match=r"give-the-folder-of-your-pairs-with---data\.source: no such file or folder"):
        next(iter(Trainer(load_recipe("sd35/flow_dpo")).steps()))

"""The presets of RankDPO and DCPO say what was published, name data and cost, and run on their family's tiny model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpref
from diffpref.config import load_recipe
from diffpref.core.contracts import Candidate, Caption, Record, Score
from diffpref.core.errors import DataError
from diffpref.data import read_store, write_store
from diffpref.methods import registry
from diffpref.models import registry as families
from diffpref.objectives import compose
from diffpref.training import Trainer

FOLDER = Path(diffpref.__file__).parent / "recipes"
PUBLISHED = {
    # name: objective, beta, learning rate, records an update on the header's 8 GPUs, steps, warm-up, resolution
    "sdxl/rank_dpo": ("rank_dpo", 5000, 1e-5, 1024, 400, 40, 1024),
    "sd35/rank_dpo": ("rank_dpo", 2000, 1e-5, 1024, 400, 40, 1024),
    "sd15/dcpo": ("dcpo", 500, 1.024e-5, 1024, 2000, 500, 512),
    "sd21/dcpo": ("dcpo", 500, 1.024e-5, 1024, 2000, 500, 512),
    "sdxl/dcpo": ("dcpo", 500, 1.024e-5, 1024, 2000, 500, 1024),
    "sd35/dcpo": ("dcpo", 500, 1.024e-5, 1024, 2000, 500, 1024),
}
COST = {"rank_dpo": (8, "3.3 million"), "dcpo": (4, "8.2 million")}
"""Forwards a record, of 4 pictures for RankDPO, and in all."""


def header(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return " ".join(
        line.removeprefix("#").strip() for line in lines[: lines.index(next(x for x in lines if x[0] != "#"))]
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_what_was_published(name: str) -> None:
    recipe, told = load_recipe(name), header(name)
    (term,) = compose([(named.name, named.options) for named in recipe.objective or ()]).terms
    optim, training = recipe.optim, recipe.training
    processes = int(re.search(r"--num_processes (\d+)", told)[1])  # type: ignore[index]
    records = processes * training.batch_size * training.accumulation
    assert (
        term.spec.name,
        term.options.beta,
        optim.learning_rate,
        records,
        training.steps,
        optim.warmup_steps,
        recipe.data.resolution,
    ) == PUBLISHED[name]
    assert (optim.betas, optim.weight_decay, optim.eps, optim.schedule) == ((0.9, 0.999), 1e-2, 1e-8, "constant")
    kind = recipe.method.name
    method = recipe.method.validate_with(registry.get(kind), "method")
    assert method == registry.get(kind)() and list(method.misfits(recipe) if kind == "rank_dpo" else ()) == []
    forwards, total = COST[kind]
    assert f"{records * training.steps * forwards / 1e6:.1f} million" == total
    assert f"{forwards} forwards a" in told and f"{total} forwards in all" in told
    assert (
        f"-m diffpref.train {name} --data.source FOLDER" in told
        and f"--mixed_precision {recipe.model.precision} " in told
    )
    assert ("diffpref generate data/syn_pic_models" if kind == "rank_dpo" else "diffpref caption captions/") in told


REWARDS = ("hps_v21", "mps", "pickscore", "vqascore", "image_reward")


@pytest.fixture(scope="module")
def data(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with the scores and captions that the presets read; four of each of eight prompts."""
    folder, draw = tmp_path_factory.mktemp("lists") / "store", np.random.default_rng(0)
    kinds = ("generated", "generated_60")

    def told(number: int, one: Candidate) -> Candidate:
        scores = tuple(Score(name, "1", float(draw.random())) for name in REWARDS)
        return replace(one, scores=scores, captions=tuple(Caption(kind, f"{kind} {number}") for kind in kinds))

    def longer(record: Record, other: Record) -> Record:
        shown = (*record.candidates, other.candidates[0])
        return replace(record, candidates=tuple(told(number, one) for number, one in enumerate(shown)))

    records = list(read_store(scored_store))[:9]
    write_store(folder, [longer(one, other) for one, other in pairwise(records)])
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps_on_the_tiny_family_cost_what_the_header_says(
    name: str, data: Path, tmp_path: Path, recipe_keys: Callable[..., dict[str, Any]]
) -> None:
    recipe = load_recipe(name)
    family = recipe.model.family
    families.get(family).tiny().pipeline().save_pretrained(tmp_path / "model")
    changes = {"model.path": str(tmp_path / "model"), "data.source": str(data), "output": str(tmp_path / "run")}
    sizes = {"data.resolution": 64, "training.steps": 2, "training.batch_size": 2, "training.accumulation": 1}
    if family == "sd3":
        sizes["model.max_sequence_length"] = 8  # T5's 256 tokens are most of the work
    if recipe.model.precision == "fp16":
        changes["model.precision"] = "fp32"  # else the scale of the loss is still being found
    if recipe.method.name == "dcpo":
        changes["data.score"] = "pickscore"  # pairs by a score, where the authors have people's judgements
    trainer = Trainer(load_recipe(name, {**changes, **sizes}))
    trainer.setup()
    asked: list[int] = []

    def counted(role: Any) -> Any:
        return lambda rows, grad=False: asked.append(len(rows.inputs["noisy"])) or role(rows, grad)

    trainer.roles.update({one: counted(role) for one, role in trainer.roles.items()})
    rows = list(trainer.steps())
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) and 0 < row["grad_norm"] < math.inf for row in rows)
    assert sum(asked) == 2 * 2 * COST[recipe.method.name][0]
    assert trainer.moving.placed["reference"].complaint() is None  # it did not move


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_data_the_error_says_how_to_give_them(name: str) -> None:
    with pytest.raises(DataError, match=r"give-the-folder-of-your-[a-z-]+-with---data\.source: no such file or folder"):
        next(iter(Trainer(load_recipe(name)).steps()))

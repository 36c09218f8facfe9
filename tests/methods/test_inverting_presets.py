"""The bundled presets of InPO, SmPO and Inversion-DPO: what was published, what it costs, and that it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import diffpref
from diffpref.config import build_recipe, load_recipe, recipe_names
from diffpref.core.contracts import Judgement, Score
from diffpref.core.errors import DataError
from diffpref.data import open_records, write_store
from diffpref.likelihood import convert_beta
from diffpref.methods import registry
from diffpref.models import registry as families
from diffpref.objectives import compose
from diffpref.sampling import inversion_calls
from diffpref.schedules import Density, DiscreteSchedule, FlowSchedule, Schedule
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

FOLDER = Path(diffpref.__file__).parent / "recipes"
METHODS = ("ddim_inpo", "smpo_diffusion", "inversion_dpo")
OURS = "sd35/smpo_diffusion"
PUBLISHED = {
    # name: pairs an update on the header's GPUs, learning rate, steps, warm-up, resolution, dropout, num_steps, beta
    "sd15/ddim_inpo": (1024, 1.024e-5, 400, 200, 512, 0.2, 10, 2000),
    "sdxl/ddim_inpo": (1024, 1.024e-5, 400, 200, 1024, 0.2, 10, 5000),
    "sd15/smpo_diffusion": (1024, 1.024e-5, 200, 100, 512, 0.2, 5, 2000),
    "sdxl/smpo_diffusion": (1024, 1.024e-5, 200, 100, 1024, 0.2, 10, 5000),
    "sdxl/inversion_dpo": (1, 1e-8, 2000, 1000, 1024, 0.0, 80, 2000),
    OURS: (64, 5e-6, 1000, 0, 1024, 0.0, 10, 100),
}
CHAIN = DiscreteSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
)
FLOW = FlowSchedule(shift=3.0)


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text()


def told(name: str) -> str:
    """The comments of a preset as one line."""
    return " ".join(line.strip().lstrip("# ") for line in text_of(name).splitlines() if line.strip().startswith("#"))


def pairs_of(name: str) -> int:
    training, found = load_recipe(name).training, re.search(r"--num_processes (\d+)", text_of(name))
    assert found
    return int(found[1]) * training.batch_size * training.accumulation


def test_every_preset_is_checked_here() -> None:
    assert {name for name in recipe_names() if name.split("/")[-1] in METHODS} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_what_was_published(name: str) -> None:
    recipe = load_recipe(name)
    method = recipe.method.validate_with(registry.get(recipe.method.name), "method")
    (term,) = compose([(named.name, named.options) for named in recipe.objective or ()]).terms
    optim = recipe.optim
    assert (
        pairs_of(name),
        optim.learning_rate,
        recipe.training.steps,
        optim.warmup_steps,
        recipe.data.resolution,
        method.empty_prompt_prob,
        method.num_steps,
        term.options.beta,
    ) == PUBLISHED[name]
    assert term.spec.name == recipe.method.name == name.split("/")[1]
    assert (optim.betas, optim.weight_decay, optim.eps, optim.schedule) == ((0.9, 0.999), 1e-2, 1e-8, "constant")
    if recipe.method.name == "ddim_inpo":
        assert (method.landing, method.eta, method.inverter, method.renoise_steps) == ("official", 0.1, "policy", 0)
    elif recipe.method.name == "smpo_diffusion":
        expected = ("exact", None) if name == OURS else ("official", 0.1665804460644722)
        assert (method.landing, method.score_range) == expected
        assert (method.eta, method.inverter, method.renoise_steps, method.gamma) == (0.0, "policy", 1, 10.0)
        assert term.options.weight_from == "beta_scale"
    else:
        assert (method.guidance, method.inverter, term.options.sign) == (2.0, "reference", "code")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_gives_the_command_and_the_cost(name: str) -> None:
    recipe, header = load_recipe(name), told(name)
    assert f"--mixed_precision {recipe.model.precision} -m diffpref.train {name} --data.source " in header
    method: Any = recipe.method.validate_with(registry.get(recipe.method.name), "method")
    if recipe.method.name == "inversion_dpo":
        inversion = whole = 2 * 2 * method.num_steps  # two samples, twice under guidance
        whole += inversion
    else:
        schedule: Schedule = FLOW if name == OURS else CHAIN
        places = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        drawn = FLOW.draw(Density("logit_normal", 0.0, 1.0, 1.29)(places)) if name == OURS else torch.arange(1000)
        inversion = 2 * inversion_calls(schedule, drawn, method.inversion_settings(schedule))
        whole = inversion + 4
    assert f"Cost: {whole:.3g} denoiser forwards a pair, {inversion:.3g} of them inversion" in header
    millions = whole * pairs_of(name) * recipe.training.steps / 1e6
    assert f"{millions:.1f} million forwards in all" in header


@pytest.mark.parametrize(
    "name", [name for name in PUBLISHED if name[:4] in ("sd15", "sdxl") and "inversion" not in name]
)
def test_the_comments_on_what_beta_absorbs_are_true(name: str) -> None:
    recipe = load_recipe(name)
    side = (recipe.data.resolution or 0) // 8
    beta = PUBLISHED[name][-1]
    nats = convert_beta(beta, source="official", target="nats", num_elements=4 * side**2, schedule=CHAIN)
    assert f"the mean over 4 x {side} x {side} latent elements" in told(name)
    assert f"{beta} is {nats:.4f} in the units of text DPO" in told(name)


@pytest.fixture(scope="module")
def scored(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store with its scores under the name that the presets ask for, in the range of cosines."""

    def renamed(one: Any) -> Any:
        return replace(one, scores=tuple(Score("pickscore", "1", 0.2 + 0.02 * s.value) for s in one.scores))

    folder = tmp_path_factory.mktemp("data") / "scored"
    records = [replace(r, candidates=tuple(map(renamed, r.candidates))) for r in open_records(str(scored_store))]
    write_store(folder, records)
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_runs_two_steps_on_the_tiny_family(name: str, scored: Path, tmp_path: Path) -> None:
    family = load_recipe(name).model.family
    changes: dict[str, Any] = {
        "model.path": str(tmp_path / "model"),
        "model.precision": "fp32",
        "data.source": str(scored),
        "data.resolution": 64,
        "data.score": "pickscore",
        "output": str(tmp_path / "run"),
        "training.steps": 2,
        "training.accumulation": 1,
        "training.batch_size": 2,
    }
    if family == "sd3":
        changes["model.max_sequence_length"] = 8
    if name == "sdxl/inversion_dpo":
        families.get(family).tiny(seed=1).pipeline().save_pretrained(tmp_path / "reference")
        changes |= {"roles.reference.path": str(tmp_path / "reference"), "method.inversion_dpo.num_steps": 4}
    families.get(family).tiny().pipeline().save_pretrained(tmp_path / "model")
    trainer = Trainer(build_recipe(load_recipe(name, changes).model_dump()))
    trainer.fit()
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert len(rows) == 2 and all(0 < row["grad_norm"] < float("inf") for row in rows)


def test_data_without_scores_are_told_the_command_that_gives_them(
    recipe_keys: Callable[..., dict[str, Any]], scored_store: Path, tmp_path: Path
) -> None:
    judged = [
        replace(
            r, candidates=tuple(replace(one, scores=()) for one in r.candidates), judgements=(Judgement(0, 1, 1.0),)
        )
        for r in open_records(str(scored_store))
    ]
    write_store(tmp_path / "judged", judged)
    for score, line in (
        (None, "need the columns chosen_score, rejected_score;.*'diffpref score STORE --rewards NAME --output DIR'"),
        ("pickscore", "'diffpref score STORE --rewards pickscore --output DIR' gives them one"),
    ):
        data = {"source": str(tmp_path / "judged"), "score": score}
        with pytest.raises(DataError, match=line) as caught:
            Trainer(build_recipe(recipe_keys(method="smpo_diffusion", data=data))).prepare()
        assert "\n" not in str(caught.value)

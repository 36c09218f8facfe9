"""Weights, margins and automatic beta from a recipe, through the trainer: on a language model and on a denoiser."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffpref.config import build_recipe, load_recipe
from diffpref.core.contracts import Candidate, Record, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import write_store
from diffpref.models import registry as families
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
CHANGES: dict[str, Any] = {"margin_clip": 5.0, "dpop": 1.0, "safeguard": True, "automatic_beta": {"rate": 0.5}}
EVERYTHING: list[Any] = [
    {"dpo": {**CHANGES, "weighting": ["wpo", {"margin": {"lowest": -50.0, "outside": 0.5}}]}},
    {"nll": {"coefficient": 0.5}},
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("text")
    family: Any = families.get("causal_lm").tiny()
    family.save_network(family.network, folder / "model", None)
    rows = [
        {"id": f"r{n}", "prompt": f"{n}? ", "chosen": "yes, surely " * (1 + n % 3), "rejected": "no " * (1 + n % 2)}
        for n in range(8)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"family": "causal_lm", "path": str(folder / "model")},
        "adapter": {"kind": "lora", "rank": 2},
        "data": {"source": str(folder / "pairs.jsonl")},
        "method": "language",
        "optim": {"learning_rate": 1e-2},
    }


def losses_of(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("objective", [EVERYTHING, ["beta_dpo"]], ids=["everything", "beta_dpo"])
def test_additions_train_text_and_go_on_to_the_bit(text: dict[str, Any], objective: Any, tmp_path: Path) -> None:
    shape = {"steps": 4, "batch_size": 2, "accumulation": 2, "checkpoint_every": 2}
    straight, broken = ({**text, "objective": objective, "training": shape, "output": str(tmp_path / n)} for n in "ab")
    rows = list(Trainer(build_recipe(straight)).steps())
    for metrics in Trainer(build_recipe(broken)).steps():
        if metrics["step"] == 3:
            break
    list(Trainer(build_recipe(broken)).steps())
    assert losses_of(tmp_path / "a") == losses_of(tmp_path / "b") and len(rows) == 4
    again = load_recipe(tmp_path / "a" / "config.yaml")
    assert again.objective == build_recipe(straight).objective
    if objective is EVERYTHING:
        logged = {"dpo/beta", "dpo/slope", "dpo/clipped", "dpo/dpop", "dpo/safeguard", "dpo/weight_wpo"}
        assert logged <= set(rows[0])
        # Where policy and reference agree the slope is 1/4, above the target: beta rises by exp(rate / 4) an update.
        assert rows[0]["dpo/slope"] == pytest.approx(0.25) and rows[0]["dpo/beta"] == pytest.approx(0.1)
        assert rows[1]["dpo/beta"] == pytest.approx(0.1 * math.exp(0.5 * 0.25), rel=1e-5)
        assert 0 < rows[0]["dpo/weight_wpo"] <= 1
    else:
        assert rows[0]["kept"] == 1 and rows[-1]["kept"] == pytest.approx(0.75)  # 3 of 4, once margins differ


def test_pairs_are_weighed_by_scores_of_the_data(text: dict[str, Any], tmp_path: Path) -> None:
    """MADPO by the score that ordered the pairs, Sem-DPO by another: the first losses are the weights times ln 2."""
    close = (1.0, 0.5, 0.0, -1.0)
    records = [
        Record(
            f"r{number}",
            f"{number}? ",
            tuple(
                Candidate(text=word, scores=(Score("judge", "1", value), Score("similarity", "1", near)))
                for word, value, near in (("yes ", 0.5 + number, close[number]), ("no ", 0.0, 0.0))
            ),
        )
        for number in range(4)
    ]
    write_store(tmp_path / "store", records)
    weighed = {**text, "data": {"source": str(tmp_path / "store"), "score": "judge"}}
    losses = {}
    for name, options in (("sem_dpo", {"alpha": 0.7}), ("madpo", {"tau": 2.0}), ("dpo", {})):
        weighting = {"weighting": {name: options}} if name != "dpo" else {}
        for objective in ([{"dpo": weighting}], [{name: options}]):
            shape = {"steps": 1, "batch_size": 4}
            run = {**weighed, "objective": objective, "training": shape, "output": str(tmp_path / f"{len(losses)}")}
            (row,) = list(Trainer(build_recipe(run)).steps())
            losses[name, len(losses)] = row["loss"] / math.log(2)
    sem, sem_too, madpo, madpo_too, one, _ = losses.values()
    expected = sum(math.exp(-0.7 * (1 - value)) for value in close) / 4
    assert sem == pytest.approx(expected, rel=1e-5) and sem_too == pytest.approx(expected, rel=1e-5)
    assert madpo == pytest.approx(madpo_too, rel=1e-6) and madpo != pytest.approx(one, rel=1e-2)


def test_additions_train_a_denoiser(recipe_keys: Keys) -> None:
    weighting = ["wpo", {"margin": {"lowest": -1.0}}, {"column": {"name": "policy_chosen_errors", "normalize": True}}]
    objective = [{"dpo": {**CHANGES, "weighting": weighting}}, {"nll": {"coefficient": 0.1}}]
    trainer = Trainer(build_recipe(recipe_keys(objective=objective, method="denoising", training={"steps": 2})))
    rows = list(trainer.steps())
    assert all(row["grad_norm"] > 0 and math.isfinite(row["loss"]) for row in rows)
    assert rows[0]["dpo/beta"] == pytest.approx(5000) and rows[1]["dpo/beta"] > 5000
    assert 0 < rows[0]["dpo/weight_wpo"] <= 1


def test_a_weighting_that_the_data_cannot_give_is_told(recipe_keys: Keys) -> None:
    with pytest.raises(DataError, match="chosen_similarity"):
        Trainer(build_recipe(recipe_keys(objective=[{"dpo": {"weighting": "sem_dpo"}}], method="denoising"))).setup()
    with pytest.raises(ConfigError, match=r"objective\[0\].dpo.weighting.madpo.tua: unknown option"):
        Trainer(
            build_recipe(recipe_keys(objective=[{"dpo": {"weighting": {"madpo": {"tua": 1}}}}], method="denoising"))
        )

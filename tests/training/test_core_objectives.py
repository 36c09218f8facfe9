"""The core losses by name on a language model: each takes a step, and those that draw or remember go on to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffpref.config import build_recipe
from diffpref.models import registry as families
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

CORE = """aot asft bco bco_pair_running f_dpo kto kto_pair ld_dpo nca_pair orpo r_dpo rpo rso_hinge sampo
sampo_independent simpo slic_hf wpo""".split()
"""One or more of each kind of demand: log-ratios or log-likelihoods, lengths, units, draws, collisions, single samples,
coupled records, running statistics. The others ask for what `dpo` asks for.
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = families.get("causal_lm").tiny()
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"id": f"r{n}", "prompt": f"{n}? ", "chosen": "yes, surely " * (1 + n % 3), "rejected": "no " * (1 + n % 2)}
        for n in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def keys(model: Path, source: Path, output: Path, objective: Any, **training: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "model": {"family": "causal_lm", "path": str(model)},
        "adapter": {"kind": "lora", "rank": 2},
        "data": {"source": str(source)},
        "method": "language",
        "objective": objective,
        "optim": {"learning_rate": 1e-2},
        "training": {"steps": 2, "batch_size": 4, **training},
    }


@pytest.mark.parametrize("name", CORE)
def test_it_trains_a_language_model_by_name(name: str, model: Path, source: Path, tmp_path: Path) -> None:
    trainer = Trainer(build_recipe(keys(model, source, tmp_path / "run", name)))
    rows = list(trainer.steps())
    assert len(rows) == 2 and all(row["grad_norm"] > 0 for row in rows)
    assert rows[0]["loss"] != rows[1]["loss"]


@pytest.mark.parametrize("name", ["sampo", "bco", "kto"])
def test_it_goes_on_to_the_bit(name: str, model: Path, source: Path, tmp_path: Path) -> None:
    shape = {"steps": 4, "batch_size": 2, "accumulation": 2, "checkpoint_every": 2}
    straight = Trainer(build_recipe(keys(model, source, tmp_path / "straight", name, **shape)))
    list(straight.steps())
    broken = keys(model, source, tmp_path / "broken", name, **shape)
    for metrics in Trainer(build_recipe(broken)).steps():
        if metrics["step"] == 3:
            break
    list(Trainer(build_recipe(broken)).steps())
    losses = [[row["loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl")] for run in ("straight", "broken")]
    assert losses[0] == losses[1] and len(losses[0]) == 4

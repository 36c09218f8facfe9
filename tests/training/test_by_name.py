"""Objectives of text train the bundled SDXL by name alone, through the real command line, and go on to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from diffpref.cli import main
from diffpref.config import dump_yaml

pytestmark = pytest.mark.slow

NAMES = ("ipo", "simpo", "kto", "sppo", "lipo_lambda", "tdpo2")


@pytest.fixture(scope="module")
def runs(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each, 5 updates at once and 3 and then 2: in this process, because importing costs more than training."""
    folder = tmp_path_factory.mktemp("by_name")
    keys = {
        "output": str(folder / "run"),
        "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
        "data": {"source": str(scored_store), "score": "oracle", "cache": str(folder / "cache")},
        "method": "denoising",
        "optim": {"learning_rate": 1e-3},
        "training": {"steps": 5, "batch_size": 2, "accumulation": 2},
    }
    (folder / "recipe.yaml").write_text(dump_yaml(keys))
    for name in NAMES:
        common = ["train", str(folder / "recipe.yaml"), "--objective", name]
        if name == "tdpo2":
            common += ["--method", "{denoising: {draws: 2}}"]
        whole, parts = ["--output", str(folder / name)], ["--output", str(folder / f"{name}-parts")]
        for words in (common + whole, [*common, *parts, "--training.steps", "3"], common + parts):
            assert main(words) == 0, words
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_of_text_trains_sdxl_by_its_name_and_resumes_equal(runs: Path, name: str) -> None:
    rows = metrics(runs / name)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert metrics(runs / f"{name}-parts") == rows
    assert len({row["loss"] for row in rows}) == 5 and all(0 < row["grad_norm"] < float("inf") for row in rows)
    (ours,), (theirs,) = (list((runs / n / "lora").glob("*.safetensors")) for n in (name, f"{name}-parts"))
    first, second = load_file(ours), load_file(theirs)
    assert first.keys() == second.keys() and all(bool((first[key] == second[key]).all()) for key in first)
    assert any(bool(tensor.any()) for key, tensor in first.items() if "lora_B" in key)

"""Every method on every family at toy size: it trains, goes on to the bit where it stopped, and leaves a model.

A new method adds its row as one file in ``tests/support/method_cases``.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_cases import FAMILIES, VIDEOS, MethodCase, cases
from safetensors.torch import load_file
from scored_clips import FRAMES, write_scored_clips

from diffpref.cli import main
from diffpref.config import build_recipe
from diffpref.methods import registry as methods
from diffpref.models import load_family
from diffpref.models import registry as families
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
CASES = cases()
QUICK = ("sd", "sd3")
"""A chain of timesteps and a flow; the other families differ in what they are told and made of."""
SHOWN = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a family's pipeline with random weights at toy size; its encoded data lie beside it."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model"
            families.get(name).tiny().pipeline().save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module")
def scored_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scored_clips(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture
def matrix_keys(
    recipe_keys: Keys, tiny: Callable[[str], Path], scored_clips: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Return the recipe of a case on a family."""

    def make(case: MethodCase, family: str) -> dict[str, Any]:
        model: dict[str, Any] = {"family": family, "path": str(tiny(family))}
        if family == "sd3":  # T5's 256 tokens are most of the work
            model["max_sequence_length"] = 8
        common = {"model": model, "data__cache": str(tiny(family).parent / "cache"), "optim__learning_rate": 1e-3}
        if family in VIDEOS:
            common |= {"data__source": str(scored_clips), "data__num_frames": FRAMES}
        keys = recipe_keys(**{**common, "method": case.name, **case.changes})
        return keys if case.prepare is None else case.prepare(tmp_path, keys)

    return make


def fit(keys: dict[str, Any], output: Path, done: int) -> Trainer:
    """Train up to three updates, of which so many are done already."""
    training = {**keys["training"], "steps": 3, "checkpoint_every": 2}
    trainer = Trainer(build_recipe({**keys, "output": str(output), "training": training}))
    trainer.setup()
    assert trainer.step == done
    trainer.fit()
    return trainer


def exact(output: Path) -> list[dict[str, Any]]:
    """Return the metrics with floats in hex, without those of speed."""
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(output / "metrics.jsonl")
    ]


@torch.no_grad()
def answer(family: Any, network: Any) -> torch.Tensor:
    """What a network says of fixed latents."""
    shape = family.latent_shape(64)
    noisy = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    times = family.sample_timesteps(torch.tensor([0.2, 0.7], dtype=torch.float64))
    told = family.encode_prompt(["a red circle", ""], 64)
    return family.forward(network.eval(), {"noisy": noisy, "timesteps": times}, told)


@pytest.mark.parametrize("family", SHOWN)
@pytest.mark.parametrize("method", CASES)
def test_a_method_trains_goes_on_and_exports(method: str, family: str, matrix_keys: Any, tmp_path: Path) -> None:
    case = CASES[method]
    if family in case.empty:
        pytest.skip(case.empty[family])
    keys = matrix_keys(case, family)
    straight = fit(keys, tmp_path / "straight", 0)
    rows = read_metrics(straight.output / "metrics.jsonl")
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)

    # as kill -9 would have left it after the third update, before that was saved
    shutil.copytree(straight.output, tmp_path / "parts", ignore=shutil.ignore_patterns("step-000003", "lora"))
    resumed = fit(keys, tmp_path / "parts", 2)
    assert exact(resumed.output) == exact(straight.output)
    first, second = (load_file(next((t.output / "lora").glob("*.safetensors"))) for t in (straight, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

    merged = tmp_path / "merged"
    assert main(["export", str(straight.output), "--format", "merged", "--output", str(merged)]) == 0
    whole = load_family(family, keys["model"]["path"])
    start = answer(whole, whole.network)
    trained = answer(whole, straight.family.network)
    torch.testing.assert_close(
        answer(whole, load_family(family, str(merged), parts=("network",)).network), trained, rtol=0, atol=1e-5
    )
    assert (trained - start).abs().max() > 1e-5


def test_every_method_of_denoisers_has_a_row() -> None:
    known = {name for name in methods if methods.get(name).likelihood == "denoising"}
    assert set(CASES) <= known
    assert known - set(CASES) <= {"sft", "diffusion_ofs_dpo"}
    assert all(set(case.empty) <= set(FAMILIES) for case in CASES.values())

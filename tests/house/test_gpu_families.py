"""The benchmarks of SD3, of videos and of methods run at toy size without an accelerator, and count rightly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from diffpref import objectives
from diffpref.core.randomness import Random

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# of what diffpref needs, all that torch, diffusers and peft do not
ABSENT = ("pydantic", "tyro", "datasets", "open_clip", "matplotlib", "pyarrow", "xxhash")
RUN = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.path[:0] = [{str(BENCHMARKS)!r},"
    f" {str(ROOT)!r}]; runpy.run_path({str(BENCHMARKS / 'gpu_families.py')!r}, run_name='__main__')"
)
SIZES = {"sd3": 2_028_328_000, "unet3d": 1_411_233_860, "animatediff_sdxl": 2_567_463_684 + 236_779_200}
"""Parameters; AnimateDiff's are those of SDXL and of its motion modules."""


def loaded(name: str) -> Iterator[ModuleType]:
    """Yield a file of the benchmarks as a module, with the others in reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def steps() -> Iterator[ModuleType]:
    """The module of the steps."""
    yield from loaded("family_steps")


@pytest.fixture(scope="module")
def methods() -> Iterator[ModuleType]:
    """The benchmark of the methods."""
    yield from loaded("gpu_methods")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)


def check(written: list[dict[str, Any]], latents: dict[str, list[int]]) -> None:
    assert {found["family"]: found["latents"] for found in written} == latents
    for found in written:
        assert found["precision"] == "bf16" and found["rank"] == 4 and found["parameters"] > 20_000
        plain, repeated = found["rows"]
        assert (plain["checkpointing"], repeated["checkpointing"]) == (False, True)
        assert 1.1 * plain["tflop_per_pair"] < repeated["tflop_per_pair"] < 1.5 * plain["tflop_per_pair"]
        for row in found["rows"]:
            assert 0 < row["ms_per_pair_fastest"] <= row["ms_per_pair"] and row["largest_margin_at_start"] == 0


SMALL = ("--tiny", "--pairs", "1", "--rank", "4", "--warmup", "1", "--repeats", "1")


def test_it_runs_with_no_more_than_torch_diffusers_and_peft_need(tmp_path: Path) -> None:
    output = tmp_path / "figures" / "tiny.json"
    done = run(*SMALL, "--families", "sd3", "--output", str(output))
    assert done.returncode == 0, done.stderr
    check(json.loads(output.read_text()), {"sd3": [4, 8, 8]})
    assert done.stdout.count("\n| 1 | ") == 2


@pytest.mark.slow
def test_clips_are_measured_too(tmp_path: Path) -> None:
    done = run(*SMALL, "--families", "unet3d", "animatediff_sdxl", "--output", str(tmp_path / "tiny.json"))
    assert done.returncode == 0, done.stderr
    clips = {"unet3d": [4, 3, 8, 8], "animatediff_sdxl": [4, 3, 8, 8]}
    check(json.loads((tmp_path / "tiny.json").read_text()), clips)


FORWARDS = {"diffusion_dpo": 4, "rank_dpo": 8, "seppo": 104, "dcpo": 4, "dense_dpo": 4}
"""A pair, as docs/methods.md says; those of inversions depend on the timesteps that are drawn."""


@pytest.mark.slow
def test_each_method_is_measured_on_every_model_that_it_runs_on(
    methods: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.json"
    small = ("--tiny", "--rank", "4", "--warmup", "1", "--repeats", "1", "--output", str(output))
    monkeypatch.setattr(sys, "argv", ["gpu_methods.py", *small])
    methods.main()
    written = json.loads(output.read_text())
    assert list(written["models"]) == ["sdxl", "sd3", "animatediff_sdxl"]
    rows = {(row["model"], row["method"]): row for row in written["rows"]}
    pictures = [name for name in methods.METHODS if name != "dense_dpo"]
    assert set(rows) == {*product(("sdxl", "sd3"), pictures), ("animatediff_sdxl", "dense_dpo")}
    for (model, name), row in rows.items():
        assert row["ms_per_pair"] > 0 and row["of_them_backward"] == (4 if name == "rank_dpo" else 2), name
        assert row["largest_log_ratio_at_start"] == 0, (model, name)
        found = row["forwards_per_pair"]
        if name in FORWARDS:
            assert found == FORWARDS[name], (model, name)
        else:  # up to ten levels, asked twice where each step is corrected, for both samples
            assert 4 < found <= 4 + 2 * 10 * (2 if name == "smpo_diffusion" else 1), (model, name)


@pytest.mark.parametrize("name", SIZES)
def test_the_real_size_is_the_published_one(name: str, steps: ModuleType) -> None:
    step = steps.FamilyStep(steps.CASES[name], False, "meta", "bf16", rank=4)
    assert sum(p.numel() for p in step.network.parameters()) - step.num_trained == SIZES[name]
    assert {p.dtype for p in step.trained} == {torch.float32} and step.network.dtype == torch.bfloat16


@pytest.mark.parametrize("name", SIZES)
def test_the_loss_is_the_objective_on_what_training_asks(name: str, steps: ModuleType) -> None:
    step = steps.FamilyStep(steps.CASES[name], True, "cpu", "fp32", rank=4)
    step.start(2, checkpointing=False)
    assert step.loss()[1].tolist() == [0, 0]
    for parameter_name, parameter in step.network.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=Random(1).generator(parameter_name)))
    loss, margins = step.loss()
    assert margins.abs().min() > 1e-3
    expected = objectives.dpo(chosen_log_ratio=margins, rejected_log_ratio=torch.zeros(2), beta=1.0).mean()
    assert loss.item() == expected.item()
    rows, latents = step.rows(), step.latent_shape
    assert rows.inputs["noisy"].shape == (4, *latents) and torch.equal(rows.inputs["timesteps"][:2], step.timesteps)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SIZES)
def test_an_accelerator_keeps_the_margin_at_zero(name: str, steps: ModuleType) -> None:
    step = steps.FamilyStep(steps.CASES[name], True, "cuda", "bf16", rank=4)
    step.start(2, checkpointing=True)
    assert step().tolist() == [0, 0]

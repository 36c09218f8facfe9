"""The benchmarks that need an accelerator run at toy size without one, and count and compute what training does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffpref import objectives
from diffpref.core.randomness import Random
from diffpref.models.families.sdxl import StableDiffusionXL

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# of what diffpref needs, all that torch, diffusers and peft do not
ABSENT = ("pydantic", "tyro", "datasets", "open_clip", "matplotlib", "pyarrow", "xxhash")
RUN = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.path[:0] = [{str(BENCHMARKS)!r},"
    f" {str(ROOT)!r}]; sys.argv[0] = 'gpu_sdxl.py'; runpy.run_path({str(BENCHMARKS / 'gpu_sdxl.py')!r},"
    " run_name='__main__')"
)


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    """The benchmarks as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name: load(name) for name in ("sdxl_step", "gpu_sdxl", "step_time", "overhead")})


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def perturb(network: Any) -> None:
    """Move an adapter away from its start, the same way wherever the names are the same."""
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=Random(1).generator(name)))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)


def test_it_runs_with_no_more_than_torch_diffusers_and_peft_need(tmp_path: Path) -> None:
    output = tmp_path / "figures" / "tiny.json"
    done = run(
        *("--tiny", "--pairs", "1", "2", "--rank", "4", "--warmup", "1", "--repeats", "2"),
        *("--output", str(output)),
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(output.read_text())
    assert [(row["checkpointing"], row["pairs"]) for row in written["rows"]] == [
        (False, 1),
        (False, 2),
        (True, 1),
        (True, 2),
    ]
    for row in written["rows"]:
        assert 0 < row["ms_per_pair_fastest"] <= row["ms_per_pair"] <= row["ms_per_pair_slowest"]
        assert row["largest_margin_at_start"] == 0
    plain, _, repeated, _ = (row["tflop_per_pair"] for row in written["rows"])
    assert 1.1 * plain < repeated < 1.5 * plain  # the forwards that checkpointing repeats are counted
    assert written["precision"] == "bf16" and written["attention"] == "native" and written["rank"] == 4
    assert done.stdout.count("\n| 2 | on |") == 2  # as it goes, and in the table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no CUDA device is at hand; try --tiny"),
        (("--tiny", "--pairs", "0"), "--pairs, --rank, --warmup and --repeats must be at least 1"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without an accelerator")
def test_a_mistake_gives_one_clear_line(
    arguments: tuple[str, ...],
    message: str,
    modules: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_sdxl.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        modules.gpu_sdxl.main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")


def test_the_real_size_is_that_of_sdxl(modules: SimpleNamespace) -> None:
    step = modules.sdxl_step.Step(modules.sdxl_step.SDXL, "meta", "bf16", rank=4)
    assert sum(p.numel() for p in step.network.parameters()) - step.num_trained == 2_567_463_684
    assert step.num_trained == 4 * 1_451_520
    assert {p.dtype for p in step.trained} == {torch.float32}
    step.start(1, checkpointing=False)
    with FlopCounterMode(display=False) as counter:
        step.roles["reference"](step.rows())
    assert counter.get_total_flops() / 1e12 == pytest.approx(2 * 6.761, rel=1e-3)


def test_the_loss_is_the_objective(modules: SimpleNamespace) -> None:
    step = modules.sdxl_step.Step(modules.sdxl_step.TOY, "cpu", "fp32", rank=4)
    step.start(3, checkpointing=False)
    assert step.loss()[1].tolist() == [0, 0, 0]
    perturb(step.network)
    loss, margins = step.loss()
    assert margins.abs().min() > 1e-3
    expected = objectives.dpo(chosen_log_ratio=margins, rejected_log_ratio=torch.zeros(3), beta=1.0).mean()
    assert loss.item() == expected.item()


def test_a_setting_that_does_not_fit_gives_a_row_and_leaves_nothing_to_the_next(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = modules.sdxl_step.Step(modules.sdxl_step.TOY, "cpu", "fp32", rank=4)

    def fails(parameters: Any, norm: float) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", fails)
        row = modules.gpu_sdxl.measure(step, 1, False, 42.6, warmup=1, repeats=1)
    assert row.ms_per_pair is None and "| 1 | off | out of memory |" in modules.gpu_sdxl.show([row], 790)
    assert any(p.grad is not None for p in step.trained)
    step.start(1, checkpointing=False)
    assert all(p.grad is None for p in step.trained)


def test_the_steps_are_compared_turn_by_turn_and_agree(modules: SimpleNamespace, tmp_path: Path) -> None:
    bench = modules.step_time
    StableDiffusionXL.tiny().pipeline().save_pretrained(tmp_path / "model")
    found = bench.compare(tmp_path, str(tmp_path / "model"), batch_size=2, repeats=3, warmup=4)
    names = ["published", "published, second copy", "published, cached"]
    assert list(found["milliseconds"]) == [*names, "diffpref", "diffpref, bank", "diffpref, filling"]
    assert {len(own) for own in found["milliseconds"].values()} == {3}
    assert max(found["losses_differ"].values()) < 1e-5
    assert found["bytes_of_weights"]["diffpref"] < found["bytes_of_weights"]["published"]
    assert "| diffpref, bank |" in bench.show(found) and "paid for itself after" in bench.show(found)


def test_the_models_parts_stand_in_sdxls_proportions(modules: SimpleNamespace) -> None:
    shares = modules.step_time.proportions(modules.step_time.proportioned(), 64)
    assert shares["image"] == pytest.approx(0.7, abs=0.05) and shares["caption"] == pytest.approx(0.02, abs=0.005)


def test_the_parts_of_a_step_add_up(modules: SimpleNamespace, tmp_path: Path) -> None:
    bench = modules.overhead
    StableDiffusionXL.tiny().pipeline().save_pretrained(tmp_path / "model")
    modules.step_time.write_pairs(tmp_path / "pairs", 8, 64)
    parts = bench.measure(tmp_path, str(tmp_path / "model"), pairs=2, repeats=2, bank=True)
    assert {*bench.DENOISER, *bench.WEIGHTS, "bank", "batch from the cache", "rest"} - parts.keys() == {
        "forward of the reference"  # read from the bank
    }
    assert all(value >= 0 for value in parts.values()) and 0 < bench.share(parts) < 1
    assert "**host overhead**" in bench.show({"bank": parts})


@pytest.mark.gpu
def test_an_accelerator_gives_times_and_memory(modules: SimpleNamespace) -> None:
    step = modules.sdxl_step.Step(modules.sdxl_step.TOY, "cuda", "bf16", rank=4)
    row = modules.gpu_sdxl.measure(step, 2, True, 1.0, warmup=2, repeats=3)
    assert 0 < row.ms_per_pair_fastest <= row.ms_per_pair and row.peak_gib > 0
    assert row.largest_margin_at_start == 0

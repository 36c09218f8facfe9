"""The optimisers that a recipe can name: equal steps, exact resume, and an extra that is missing is named."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diffpref.config import Optim, build_recipe
from diffpref.core.errors import ConfigError
from diffpref.training import Trainer
from diffpref.training.optimizer import make_optimizer

Keys = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
HAS_BNB = importlib.util.find_spec("bitsandbytes") is not None


def after(steps: int, optim: Optim, size: int = 8) -> torch.Tensor:
    """Return a weight after some steps towards fixed gradients."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(size, size, generator=generator))
    optimizer = make_optimizer(optim, {"all": [weight]}, CPU)
    for _ in range(steps):
        weight.grad = torch.randn(size, size, generator=generator)
        optimizer.step()
    return weight.detach()


def test_fused_adamw_takes_the_same_steps() -> None:
    fused, plain = (after(20, Optim(learning_rate=1e-2, fused=fused)) for fused in (True, False))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-7)
    assert (fused - after(0, Optim())).abs().min() > 0


def test_every_group_becomes_a_group_with_the_settings_of_the_recipe() -> None:
    optim = Optim(learning_rate=3e-4, weight_decay=0.3, betas=(0.5, 0.75), eps=1e-6)
    groups = {"a": [nn.Parameter(torch.zeros(2))], "b": [nn.Parameter(torch.zeros(3))]}
    first, second = make_optimizer(optim, groups, CPU).param_groups
    assert [p.shape for p in (*first["params"], *second["params"])] == [(2,), (3,)]
    for group in (first, second):
        assert (group["lr"], group["weight_decay"], group["betas"], group["eps"]) == (3e-4, 0.3, (0.5, 0.75), 1e-6)
        assert group["fused"] is True


def test_row_43_a_missing_bitsandbytes_names_the_extra(recipe_keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    trainer = Trainer(build_recipe(recipe_keys(optim__kind="adamw8bit")))
    with pytest.raises(
        ConfigError, match=r"^optim\.kind: adamw8bit needs bitsandbytes; pip install 'diffpref\[bnb\]'$"
    ):
        trainer.setup()


@pytest.mark.skipif(not HAS_BNB, reason="needs the extra 'bnb'")
def test_moments_in_eight_bits_follow_those_in_thirty_two() -> None:
    eight, full = (after(20, Optim(learning_rate=1e-2, kind=kind), size=128) for kind in ("adamw8bit", "adamw"))
    start = after(0, Optim(), size=128)
    moved = (full - start).flatten()
    assert torch.nn.functional.cosine_similarity((eight - start).flatten(), moved, dim=0) > 0.98
    assert not torch.equal(eight, full)


def stopped_and_resumed(
    keys: Keys, folder: Path, **optim: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Train seven updates at once, and with a stop after the fourth; return both policies."""
    states = []
    for name, stop in (("straight", None), ("broken", 5)):
        shape = {"steps": 7, "batch_size": 2, "checkpoint_every": 4}
        # rank 256 makes matrices of 4096 numbers, the smallest that are held in 8 bits
        recipe = build_recipe(
            keys(
                output=str(folder / name),
                training=shape,
                adapter={"kind": "lora", "rank": 256},
                optim={"learning_rate": 1e-3, **optim},
            )
        )
        if stop is not None:
            for metrics in Trainer(recipe).steps():
                if metrics["step"] == stop:
                    break
        trainer = Trainer(recipe)
        trainer.setup()
        assert trainer.step == (4 if stop else 0)
        trainer.fit()
        states.append(trainer.plan.adapter.state(trainer.bare))
    return states[0], states[1]


@pytest.mark.parametrize(
    "optim",
    [
        {"fused": True},
        {"fused": False},
        pytest.param({"kind": "adamw8bit"}, marks=pytest.mark.skipif(not HAS_BNB, reason="needs the extra 'bnb'")),
    ],
    ids=["fused", "plain", "8-bit"],
)
def test_a_resumed_run_is_bit_identical(recipe_keys: Keys, tmp_path: Path, optim: dict[str, Any]) -> None:
    straight, resumed = stopped_and_resumed(recipe_keys, tmp_path, **optim)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_benchmark_of_the_optimisers_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "optimizer_step.py"
    monkeypatch.setattr(sys, "argv", [str(file), "--repeats", "2"])
    runpy.run_path(str(file), run_name="__main__")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| step", "| ---", "| plain", "| fused", *(["| 8 bits"] if HAS_BNB else [])]
    state = {row[0]: float(row[3].rstrip(" |")) for row in rows[2:]}
    assert state["| plain"] == state["| fused"] == pytest.approx(8, abs=0.1)  # two moments in float32
    assert not HAS_BNB or state["| 8 bits"] < 2.5

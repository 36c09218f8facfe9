"""The metrics of an update: by timestep, over micro-batches and processes, and the logit scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.training import Trainer
from diffpref.training.forward import Forward, run_forward
from diffpref.training.memory import memory_bytes
from diffpref.training.metrics import NUM_BINS, gradient_sizes, timestep_bins, update_metrics

Keys = Callable[..., dict[str, Any]]


def test_bins_divide_the_path_evenly_whatever_its_units() -> None:
    steps = torch.tensor([0, 99, 100, 499, 500, 999])
    assert timestep_bins(steps / 1000).tolist() == [0, 0, 1, 4, 5, 9]
    assert timestep_bins(torch.tensor([0.0, 0.05, 0.5, 0.99, 1.0])).tolist() == [0, 0, 5, 9, 9]


def forward(timesteps: list[int], margins: list[float], slopes: list[float]) -> Forward:
    """A micro-batch whose loss has the given slopes by the chosen log-ratio."""
    ratio = torch.zeros(len(timesteps), requires_grad=True)
    (ratio * torch.tensor(slopes)).sum().backward()
    values = torch.tensor(margins)
    return Forward(
        sums=torch.zeros(1),
        weights=torch.ones(1),
        finite=torch.ones(len(timesteps), dtype=torch.bool),
        metrics={"rewards/margins": values, "rewards/accuracies": (values > 0).float()},
        losses=values[None] * 2,
        log_ratios={},
        state={},
        read={"chosen_log_ratio": ratio.detach()},
        gradients={"chosen_log_ratio": ratio.grad} if ratio.grad is not None else {},
        timesteps=torch.tensor(timesteps),
        keys=tuple((str(t), 0) for t in timesteps),
    )


def test_bins_add_sums_and_counts_before_they_divide() -> None:
    # two processes with two micro-batches each; a mean of means would give bin 0 another value
    own = [forward([10, 20, 950], [1.0, 2.0, 3.0], [1.0, -1.0, 2.0]), forward([30], [6.0], [0.0])]
    other = [forward([40], [-9.0], [-4.0]), forward([150], [5.0], [0.5])]
    sent: list[torch.Tensor] = []
    coefficients, loss = torch.tensor([0.5]), torch.tensor(0.25)
    update_metrics(other, loss, coefficients, lambda steps: steps / 1000, lambda flat: (sent.append(flat), flat)[1])
    metrics = update_metrics(own, loss, coefficients, lambda steps: steps / 1000, lambda flat: flat + sent[0])
    assert metrics == pytest.approx(
        {
            "loss": 0.25,
            "rewards/margins": 8 / 6,
            "rewards/accuracies": 5 / 6,
            "margins/timestep_bin_0": 0.0,
            "margins/timestep_bin_1": 5.0,
            "margins/timestep_bin_9": 3.0,
            "accuracies/timestep_bin_0": 0.75,
            "accuracies/timestep_bin_1": 1.0,
            "accuracies/timestep_bin_9": 1.0,
            "losses/timestep_bin_0": 0.0,
            "losses/timestep_bin_1": 5.0,
            "losses/timestep_bin_9": 3.0,
            "gradient_share/timestep_bin_0": 6 / 8.5,
            "gradient_share/timestep_bin_1": 0.5 / 8.5,
            "gradient_share/timestep_bin_9": 2 / 8.5,
        }
    )


def test_metrics_leave_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [forward([10, 950], [1.0, 3.0], [1.0, 2.0])]
    calls: list[str] = []
    for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
        real = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, real: Any = real, name: str = name) -> Any:
            calls.append(name)
            return real(self)

        monkeypatch.setattr(torch.Tensor, name, counted)
    update_metrics(seen, torch.tensor(0.5), torch.tensor([1.0]), lambda steps: steps / 1000, lambda flat: flat)
    assert calls == ["tolist"]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_bins_of_an_update_are_those_of_its_records(recipe_keys: Keys, accumulation: int) -> None:
    shape = {"steps": 2, "batch_size": 8 // accumulation, "accumulation": accumulation}
    trainer = Trainer(
        build_recipe(recipe_keys(training=shape, objective={"dpo": {"beta": 50}}, optim__learning_rate=1e-3))
    )
    steps = trainer.steps()
    next(steps)
    singles: list[tuple[int, float, float, float]] = []
    for item in trainer.batches.sampler.batch(1, 8):
        one = run_forward(
            trainer.plan, trainer.updater.likelihood, trainer.batches.batch([item]), trainer.updater.context
        )
        ratios = list(one.read.values())
        size = gradient_sizes(dict(zip(one.read, torch.autograd.grad(one.sums.sum(), ratios), strict=True)))
        assert one.timesteps is not None and size is not None
        m = one.metrics["rewards/margins"].item()
        assert size.item() == pytest.approx(2 * 50 * torch.sigmoid(torch.tensor(-m)).item(), rel=1e-5)
        singles.append((one.timesteps.item() * NUM_BINS // 1000, m, one.losses.sum().item(), size.item()))
    row = next(steps)
    whole = sum(size for *_, size in singles)
    for k in range(NUM_BINS):
        inside = [single for single in singles if single[0] == k]
        assert (f"margins/timestep_bin_{k}" in row) == (f"gradient_share/timestep_bin_{k}" in row) == bool(inside)
        if inside:
            mean = [sum(column) / len(inside) for column in zip(*inside, strict=True)]
            assert row[f"margins/timestep_bin_{k}"] == pytest.approx(mean[1], abs=1e-5)
            assert row[f"losses/timestep_bin_{k}"] == pytest.approx(mean[2], rel=1e-5)
            assert row[f"gradient_share/timestep_bin_{k}"] == pytest.approx(
                sum(size for *_, size in inside) / whole, rel=1e-4
            )
    assert len({bin for bin, *_ in singles}) > 2
    assert row["logits/scale"] == pytest.approx(sum(abs(m) for _, m, *_ in singles) / 8, abs=1e-5)


def test_looking_costs_no_forward(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys()))
    trainer.setup()
    calls: list[str] = []
    for name, role in dict(trainer.roles).items():
        trainer.roles[name] = lambda rows, grad=False, name=name, role=role: (calls.append(name), role(rows, grad))[1]
    trainer.updater = replace(trainer.updater, context=replace(trainer.updater.context, roles=trainer.roles))
    trainer.updater(0)
    assert sorted(calls) == ["policy", "reference"]


def test_memory_is_that_of_this_process() -> None:
    before = memory_bytes(torch.device("cpu"))
    held = bytearray(b"x") * (64 * 2**20)  # written to: pages of zeros are not there yet
    after = memory_bytes(torch.device("cpu"))
    assert len(held) <= after - before + 2**20 and math.isfinite(after) and Path("/proc/self/statm").exists()

"""The table over all objectives: a run is judged, kept, and not done again; what fails is told with its evidence."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from diffpref.objectives import discopop

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of the benchmarks, which is no part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_run_is_judged_kept_and_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("text_world", monkeypatch)
    budget = script.Budget(prompts=30, answers=3, steps=2, batch_size=4, held_out=20)
    start = script.prepare(tmp_path, budget)
    assert len(start["scores"]) == 40 and 0.2 < start["right"] < 0.8
    result = script.run("dpo", tmp_path, budget, 1e-12, start)
    assert len(result["curve"]["loss"]) == 2
    win = result["win"]
    assert win["rate"] == 0.5 and win["ties"] == 40  # two updates of nothing: the same model from the same draws
    assert not script.rises(result) and result["right"] == start["right"]
    result["kept"] = True
    (kept,) = (tmp_path / "results").glob("dpo@*.json")
    kept.write_text(json.dumps(result))
    assert script.run("dpo", tmp_path, budget, 1e-12, start)["kept"]
    assert script.run("lipo_lambda", tmp_path, budget, 1e-5, start)["curve"]["loss"]  # lists from the same answers
    assert script.run("diffusion_kto", tmp_path, budget, 1e-5, start)["curve"]["loss"]  # labelled ones too
    assert script.refusal("dpo", tmp_path, budget) is None
    assert script.refusal("ddpo", tmp_path, budget) == "needs advantage, which these data do not hold"
    assert "needs" in script.refusal("dspo", tmp_path, budget)


def test_the_table_counts_and_shows_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load("text_world_table", monkeypatch).table

    def run(low: float, rate: float = 1e-5) -> dict[str, Any]:
        win = {"rate": low + 0.02, "low": low, "high": low + 0.04}
        curve = {"loss": [float(k) for k in range(10)], "rewards/margins": [0.5] * 10}
        return {"learning_rate": rate, "curve": curve, "win": win, "right": 0.5} | {
            "facts": {"closed": 0.97, "count": 0.8},
            "seconds": 60.0,
            "cpu_seconds": 30.0,
        }

    broken = {**run(0.0), "error": "DataError: no pairs"}
    del broken["win"], broken["right"], broken["facts"]
    kinds = {
        "dpo": "pairwise",
        "kto": "pointwise",
        "nll": "supervised",
        "ipo": "pairwise",
        "spo": "step",
        "online_kl": "step",
    }
    numbers = {
        "budget": {"prompts": 1, "answers": 2, "steps": 3, "batch_size": 4, "learning_rate": 1e-5, "held_out": 5}
        | {"draws": 2},
        "start": {"right": 0.4, "facts": {"closed": 0.9, "count": 0.8}},
        "about": {name: {"kind": kind, "evidence": "paper"} for name, kind in kinds.items()},
        "objectives": {
            "dpo": [run(0.51)],
            "kto": [run(0.5), run(0.45, 3e-5)],
            "nll": [run(0.6)],
            "online_kl": [run(0.5)],
            "ipo": [broken],
        },
        "refused": {"spo": "needs segments"},
    }
    text = table(numbers)
    assert "**1 of 3** pairwise, pointwise and listwise objectives (33.3 %)" in text
    assert "| `dpo` | pairwise | paper | 53.0 % [51.0 %, 55.0 %] | 50.0 % | 0 0.5 2.5 4.5 6.5 8.5 | 0.5 |" in text
    assert "| (the start) | 90.0 | 80.0 |" in text and "| `nll` | 97.0 | 80.0 |" in text
    below = text.split("## Not above one half")[1]
    assert "`kto` | 3e-05 | 47.0 %" in below and "`ipo` | 1e-05 | DataError: no pairs" in below and "`dpo`" not in below
    assert "- `spo` (step): needs segments" in below and "6 minutes" in text
    assert "- `online_kl`: a penalty" in below


def test_discopop_begins_by_unlearning_as_the_table_says() -> None:
    ratio = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    discopop(chosen_log_ratio=ratio, rejected_log_ratio=torch.zeros_like(ratio), beta=0.1).sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.item() == pytest.approx(0.1 * ((1 - math.log(2)) / (4 * 0.05) - 0.75))
    assert ratio.grad.item() > 0.078

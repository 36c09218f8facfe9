"""The comparison of the headline methods: its rows are recipes, its search takes the best, its intervals cover both
seeds and captions."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from diffpref.training.plan import make_plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it is no part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("headline_methods", BENCHMARKS / "headline_methods.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "headline_methods", module)  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


def judged(held: str, hps: list[float]) -> dict[str, Any]:
    return {"facts": {"colour": held, "shape": "1" * len(held)}, "scores": {"hps": hps}, "forwards": 40, "updates": 5}


def test_each_row_is_a_recipe_of_its_own_method(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.Job, "data", lambda self, kind, seed, prompts: tmp_path / str(seed) / kind)
    for name, track in script.TRACKS.items():
        job = script.Job(name, track, tmp_path, tmp_path)
        for row, told in track.rows.items():
            recipe = job.recipe(row, 1, 300.0, 2e-4, track.trained_on)
            plan = make_plan(recipe)  # which refuses options and data that do not fit the method
            assert recipe.seed == 1 and recipe.optim.learning_rate == 2e-4
            assert recipe.objective is not None and recipe.objective[0].options["beta"] == 300.0
            assert told.control or recipe.method.name == row
            assert plan.method.needs
        searched, learnt = (
            set(script.texts_of(track.searched_on) + script.texts_of(track.search_trained_on)),
            set(script.texts_of(track.trained_on)),
        )
        assert not (searched | learnt) & set(script.texts_of(track.judged_on))
        assert not searched & learnt


def test_the_search_takes_the_setting_with_most_facts_right(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = replace(script.TRACKS["image"], grid=((1.0, 1e-4), (2.0, 1e-4), (3.0, 1e-4)))
    found = {1.0: "0101", 2.0: "0111", 3.0: "0000"}

    def run(self: Any, name: str, seed: int, beta: float, rate: float, *, search: bool) -> dict[str, Any]:
        assert search and seed == script.SEARCH_SEED
        return {"marks": {"1": judged(found[beta], [0.0] * 4)}}

    monkeypatch.setattr(script.Job, "run", run)
    monkeypatch.setattr(script.Job, "base", lambda self, seed, prompts: judged("0001", [0.0] * 4))
    best = script.Job("image", track, tmp_path, tmp_path).best("diffusion_dpo")
    assert best["beta"] == 2.0 and best["gain"] == pytest.approx(2 / 8)


def test_intervals_cover_seeds_and_captions(script: ModuleType) -> None:
    two_way = sys.modules["headline_table"].two_way
    same = two_way(np.full((3, 20), 0.25))
    assert (same.mean, same.low, same.high) == pytest.approx((0.25, 0.25, 0.25))
    by_seed, by_caption = np.zeros((2, 20)), np.zeros((2, 20))
    by_seed[1], by_caption[:, 10:] = 1.0, 1.0
    told = two_way(by_seed)
    assert (told.low, told.mean, told.high) == pytest.approx(
        (0.0, 0.5, 1.0)
    )  # captions alone would have told 0.5 exactly
    told = two_way(by_caption)
    assert 0.2 < told.low < 0.35 and 0.65 < told.high < 0.8


def test_the_page_tells_who_beats_the_base_on_what_all_have_run(script: ModuleType) -> None:
    table = sys.modules["headline_table"]
    rows = {name: script.TRACKS["image"].rows[name] for name in ("diffusion_dpo", "rank_dpo", "dpo_on_lists")}
    track = replace(script.TRACKS["image"], rows=rows, compared=script.TRACKS["image"].compared[4:5], curve=8)
    held = {"diffusion_dpo": "00000000", "rank_dpo": "11111111", "dpo_on_lists": "11111110"}

    def run(name: str) -> dict[str, Any]:
        marks = ("0.25", "0.5", "1") if rows[name].curve else ("1",)
        told = {mark: judged(held[name], [1.0] * 8) for mark in marks}
        return {"beta": 1.0, "rate": 1e-3, "seconds": 2.0, "cpu_seconds": 2.0, "marks": told}

    results = {
        "search": {name: [{"gain": gain} for gain in (0.1, 0.3, 0.2)] for name in rows},
        "base": {str(seed): judged("00000000", [1.0] * 7 + [2.0]) for seed in (0, 1, 2)},
        "runs": {name: {str(seed): run(name) for seed in (0, 1)} for name in rows},
    }
    text = table.page("image", track, results)
    assert "1 of 2 methods beat the base" in text and "Seeds 0, 1; 16 samples a cell" in text
    assert "| `rank_dpo` | 1 | 0.001 | 5 | 40 | 0.0 -> 100.0 | +100.0 [+100.0, +100.0] |" in text
    assert "`rank_dpo` minus `dpo_on_lists` | +12.5 [+0.0, +37.5]" in text
    assert table.Cells(results).wins("rank_dpo", "hps").mean == pytest.approx(7 / 16)
    assert "| `rank_dpo` | +10.0 | **+30.0** | +20.0 |" in text

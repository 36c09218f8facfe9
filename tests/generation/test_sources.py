"""Several models for the same prompts: one record of all, each source's own whatever the others are, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from diffpref.cli import main
from diffpref.config import build_recipe
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import hash_key
from diffpref.data import Combined, decode_image, list_view, read_store
from diffpref.generation import GenerationPlan, GenerationRecipe, generate_sources
from diffpref.models import registry
from diffpref.ranking import win_shares
from diffpref.training import Trainer

PLAN = GenerationPlan(prompts=("a", "b", "c", "d", "e"), candidates=1, seed=7, unit_size=2)
COUNTS = {"one": 1, "two": 2, "three": 1}


class Channel:
    """A reward: the mean of one channel."""

    def __init__(self, number: int, stop_after: int | None = None) -> None:
        self.number, self.stop_after, self.calls = number, stop_after, 0

    @property
    def info(self) -> RewardInfo:
        return RewardInfo(f"channel-{self.number}", "1", "Apache-2.0", (0.0, 255.0))

    def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
        if self.calls == self.stop_after:
            raise RuntimeError("killed")
        self.calls += 1
        return torch.tensor([float(np.asarray(picture)[..., self.number].mean()) for picture in media])


class House:
    """Sources that can be opened, and what they drew; one may stop."""

    def __init__(self, stop: str = "", names: Sequence[str] = tuple(COUNTS)) -> None:
        self.stop, self.names = stop, names
        self.opened: list[str] = []
        self.drawn: list[tuple[str, str, int]] = []

    def sources(self) -> dict[str, Any]:
        return {name: lambda name=name: self.open(name) for name in self.names}

    def open(self, name: str) -> tuple[GenerationPlan, Any]:
        self.opened.append(name)
        return replace(PLAN, candidates=COUNTS.get(name, 1), generator=f"model {name}"), lambda *asked: self.draw(
            name, *asked
        )

    def draw(self, name: str, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        if self.stop == f"{name} {prompts[0]}":
            raise RuntimeError("killed")
        self.drawn += [(name, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in seeds]


def scorers(stop_after: int | None = None) -> dict[str, Any]:
    return {"red": Channel(0), "green": Channel(1, stop_after)}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_record_holds_what_each_source_drew_from_noise_of_its_own(tmp_path: Path) -> None:
    house = House()
    store = generate_sources(house.sources(), tmp_path / "store", scorers=scorers())
    assert house.opened == list(COUNTS) and [record.prompt for record in store] == list(PLAN.prompts)
    record = store[3]
    expected = [hash_key(7, "candidate", "d", k, name) for name, count in COUNTS.items() for k in range(count)]
    assert [candidate.seed for candidate in record.candidates] == expected and len(set(expected)) == 4
    made_by = [candidate.generator.partition(",")[0] for candidate in record.candidates]
    assert made_by == ["one: model one", "two: model two", "two: model two", "three: model three"]
    assert all([score.name for score in one.scores] == ["red", "green"] for one in record.candidates)
    assert not (tmp_path / "store" / ".sources").exists()
    rows = [[one.scores[k].value for one in record.candidates] for k in range(2)]
    phi = next(
        r for r in list_view(store, Combined(("red", "green"), "strict_win_fraction")) if r.record_id == record.id
    )
    assert list(phi.scores) == pytest.approx(win_shares(rows))


def test_another_source_changes_nothing_of_the_others(tmp_path: Path) -> None:
    store = generate_sources(House().sources(), tmp_path / "a")
    fewer = generate_sources(House(names=("three", "two")).sources(), tmp_path / "b")
    for record, other in zip(store, fewer, strict=True):
        assert record.id == other.id
        assert other.candidates == (record.candidates[3], *record.candidates[1:3])


@pytest.mark.parametrize(("stop", "stop_after"), [("one a", None), ("two c", None), ("three e", None), ("", 1)])
def test_after_a_stop_nothing_that_is_there_is_drawn_again(tmp_path: Path, stop: str, stop_after: int | None) -> None:
    generate_sources(House().sources(), tmp_path / "whole", scorers=scorers())
    first, second, output = House(stop), House(), tmp_path / "store"
    with pytest.raises(RuntimeError, match="killed"):
        generate_sources(first.sources(), output, scorers=scorers(stop_after))
    with pytest.raises(DataError, match="not a store"):
        read_store(output)
    progress: list[tuple[int, int]] = []
    generate_sources(second.sources(), output, lambda *done: progress.append(done), scorers=scorers())
    assert not set(first.drawn) & set(second.drawn) and len(first.drawn) + len(second.drawn) == 20
    assert progress[-1] == (20, 20) and content(output) == content(tmp_path / "whole")
    third = House()
    generate_sources(third.sources(), output, scorers=scorers())
    assert not third.drawn and content(output) == content(tmp_path / "whole")


def test_other_sources_are_another_plan(tmp_path: Path) -> None:
    generate_sources(House().sources(), tmp_path / "store")
    for names, said in ((("one", "two"), "sources.three: only there"), ((*COUNTS, "four"), "sources.four: only here")):
        house = House(names=names)
        with pytest.raises(DataError, match=said):
            generate_sources(house.sources(), tmp_path / "store")
        assert not house.drawn
    other = {"one": lambda: (PLAN, None), "two": lambda: (replace(PLAN, seed=8), None)}
    with pytest.raises(ConfigError, match="'two' has other seed than 'one'"):
        generate_sources({**other, "one": House().sources()["one"]}, tmp_path / "other")  # type: ignore[dict-item]


# ---------------------------------------------------------------- the command

MODEL = {"family": "sdxl", "path": "x"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": MODEL, "sources": [{"name": "a", "model": MODEL}]}, "leave the section model out"),
        ({"sources": [{"name": "a", "model": MODEL}] * 2}, "the name 'a' is there twice"),
        ({"sources": [{"name": "a", "model": MODEL}], "candidates": 4}, "those of the sources are 1"),
        ({"sources": [{"name": "../a", "model": MODEL}]}, "sources"),
        ({}, "model.family"),
    ],
)
def test_models_are_named_once(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        GenerationRecipe.model_validate({"output": "x", "prompts": "shapes:unseen:2", **keys})
    assert said in str(error.value).replace("\n", ".")


def test_three_models_draw_for_the_same_prompts(
    recipe_keys: Callable[..., dict[str, Any]], tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Trainer(build_recipe(recipe_keys(optim__learning_rate=1e-2, training={"steps": 1, "batch_size": 2})))
    run.fit()
    registry.get("sd").tiny().pipeline().save_pretrained(tmp_path / "sd")
    sdxl = {"family": "sdxl", "path": str(tiny_sdxl)}
    sources = [
        {"name": "sdxl", "model": dict(sdxl), "guidance_scales": [1.0]},
        {"name": "sd", "model": {"family": "sd", "path": str(tmp_path / "sd")}, "candidates": 2},
        {"name": "earlier", "model": dict(sdxl), "weights": str(run.output), "num_inference_steps": 3},
    ]
    recipe = {"sources": sources, "prompts": "shapes:unseen:3", "num_inference_steps": 2, "rewards": ["oracle"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["generate", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "store"), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["candidates"]) == (3, 12)
    (first, *_) = store = read_store(tmp_path / "store")
    made_by = [candidate.generator.split(": ")[0] for candidate in first.candidates]
    assert made_by == ["sdxl", "sd", "sd", "earlier"] and "guidance 1" in first.candidates[0].generator
    assert "3 steps" in first.candidates[3].generator
    pictures = [np.asarray(decode_image(candidate.bytes)) for candidate in first.candidates]
    assert all((one != other).any() for k, one in enumerate(pictures) for other in pictures[:k])
    plans = store.manifest["generator"]["sources"]
    assert plans["sdxl"]["generator"] != plans["earlier"]["generator"]  # the run's weights are part of it
    assert main(words) == 0 and json.loads(capsys.readouterr().out)["candidates"] == 12

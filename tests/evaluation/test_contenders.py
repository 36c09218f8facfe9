"""Who can be named on the command line, under which name, and what a mistake says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffpref.config import build_recipe, save_recipe
from diffpref.core.errors import CheckpointError, ConfigError, DiffprefError
from diffpref.evaluation.contenders import Contender, parse_contenders
from diffpref.evaluation.evaluating import base_of


@pytest.fixture
def run(tmp_path: Path, recipe_keys: Callable[..., dict[str, Any]]) -> Path:
    folder = tmp_path / "mine"
    (folder / "lora").mkdir(parents=True)
    (folder / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    save_recipe(build_recipe(recipe_keys()), folder / "config.yaml")
    return folder


def test_kinds_are_told_apart_by_what_lies_there(run: Path, tiny_sdxl: Path) -> None:
    words = [
        str(run),
        f"named={run}/lora",
        str(tiny_sdxl),
        f"unet={tiny_sdxl}/unet",
        "some/where",
        "bundled:shapes-sdxl",
    ]
    found = parse_contenders(words)
    assert [(one.name, one.kind) for one in found] == [
        ("mine", "run"),
        ("named", "lora"),
        ("tiny-sdxl", "pipeline"),
        ("unet", "network"),
        ("where", "hub"),
        ("shapes-sdxl", "pipeline"),
    ]
    assert found[0].recipe() is not None and found[1].recipe() is None


def test_an_average_is_a_contender_of_its_own(run: Path) -> None:
    with pytest.raises(CheckpointError, match="no averaged result"):
        parse_contenders([f"{run}:ema"])
    (run / "lora_ema").mkdir()
    assert parse_contenders([str(run), f"{run}:ema"]) == [
        Contender("mine", "run", str(run)),
        Contender("mine-ema", "run", str(run), ema=True),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "{run}"], "the name 'mine' is there twice; give another one: NAME=PATH"),
        (["base={run}"], "the name 'base' is the base's own"),
        (["{run}/lora:ema"], "only a run has an average"),
        (["nowhere"], "nowhere is not a run: no such folder; nor is it a LoRA, a model, or a hub id"),
        (["{run}/config.yaml"], "is a file that is no .safetensors"),
        (["{empty}"], "has no config.yaml; nor is it a LoRA or a model"),
        (["bundled:shapes-sdx"], "did you mean 'shapes-sdxl'"),
    ],
)
def test_mistakes_are_one_line(run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiffprefError) as error:
        parse_contenders([word.format(run=run, empty=tmp_path / "empty") for word in words])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_runs_of_one_evaluation_have_one_base(
    run: Path, tmp_path: Path, recipe_keys: Callable[..., dict[str, Any]]
) -> None:
    other = tmp_path / "other"
    (other / "model").mkdir(parents=True)
    save_recipe(build_recipe(recipe_keys(model__path="elsewhere")), other / "config.yaml")
    assert base_of(parse_contenders([f"{run}/lora"])) is None
    one = base_of(parse_contenders([f"{run}/lora", str(run)]))
    assert one.model.path == recipe_keys()["model"]["path"]
    with pytest.raises(CheckpointError, match=r"other started from elsewhere, mine from .*; runs of one"):
        base_of(parse_contenders([str(run), str(other)]))


def test_a_name_needs_letters(run: Path) -> None:
    with pytest.raises(ConfigError):
        parse_contenders([f"{run}", f"mine={run}"])

"""The model card says what a hub and a reader need, and nothing that is this machine's."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from diffpref.config import build_recipe
from diffpref.training import Trainer
from diffpref.training.card import model_card
from diffpref.training.log import read_metrics
from diffpref.training.plan import make_plan

Keys = Callable[..., dict[str, Any]]
DATA = {"pairs": 1234, "content": "0123abcd"}


def test_the_card_of_a_run_has_its_facts_and_no_path_of_this_machine(recipe_keys: Keys, tmp_path: Path) -> None:
    keys = recipe_keys(objective=[{"dpo": {"beta": 300}}, {"nll": {"coefficient": 0.5}}], seed=11)
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "text-to-image")
    assert card.data.tags == ["diffpref", "diffusion_dpo", "dpo", "lora", "nll", "preference-alignment"]
    assert card.data.license == "other" and card.data.base_model is None  # a local folder is no name on a hub
    for fact in (
        "| base model | tiny-sdxl |",
        "dpo (coefficient 1, beta 300",
        "nll (coefficient 0.5",
        "| seed | 11 |",
        f"16 pairs, digest `{trainer.data_digest['content']}`",
        "3 updates of 2 pairs, learning rate 0.0001",
        "`diffpref train config.yaml`",
        'pipe.load_lora_weights("lora")',
        "eprint = {2311.12908}",
        "diffpref 0.1.0",
    ):
        assert fact in text, fact
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    end = sum(row["loss"] for row in rows) / 3
    assert f"| loss | {rows[0]['loss']:.4g} | {end:.4g} |" in text
    for private in (str(tmp_path), str(Path.home()), "/tmp", getpass.getuser() + "/", keys["model"]["path"]):
        assert private not in text
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt)/", text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "stabilityai/stable-diffusion-xl-base-1.0",
            {
                "base_model": "stabilityai/stable-diffusion-xl-base-1.0",
                "license": "other",
                "license_name": "as-the-base-model",
                "license_link": "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
            },
        ),
        ("bundled:shapes-sdxl", {"license": "apache-2.0"}),
        ("/somewhere/private/my-model", {"license": "other", "license_name": "as-the-base-model"}),
    ],
)
def test_base_and_licence_follow_where_the_model_comes_from(
    recipe_keys: Keys, path: str, expected: dict[str, str]
) -> None:
    recipe = build_recipe(recipe_keys(model__path=path, model__revision="abc"))
    text = model_card(recipe, make_plan(recipe), data=DATA, processes=2)
    header = yaml.safe_load(text.split("---")[1])
    assert {key: value for key, value in header.items() if key in (*expected, "license_link", "base_model")} == expected
    assert "1,234 pairs, digest `0123abcd`" in text and "private" not in text
    assert "accelerate launch --num_processes 2 -m diffpref.train config.yaml" in text
    assert ", revision abc |" in text and "## Measured" not in text


def test_the_licence_of_a_local_base_is_read_from_its_card(recipe_keys: Keys, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: openrail++\n---\n# A model\n")
    recipe = build_recipe(recipe_keys(model__path=str(base), adapter={"kind": "full"}))
    text = model_card(recipe, make_plan(recipe), data=DATA)
    assert ModelCard(text).data.license == "openrail++"
    assert 'UNet2DConditionModel.from_pretrained("model")' in text


def test_a_hub_validates_what_the_header_holds(recipe_keys: Keys) -> None:
    recipe = build_recipe(recipe_keys(model__path="somebody/a-model"))
    card = ModelCard(
        model_card(recipe, make_plan(recipe), data=DATA, metrics=[{"step": 1, "loss": 0.5, "eval/hps": 2}])
    )
    assert json.loads(json.dumps(card.data.to_dict()))["tags"]
    assert "| eval/hps | 2 | 2 |" in card.content

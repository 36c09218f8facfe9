"""VDPO on a model that sees: the same tokens after another picture, and nothing else differs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref.config import build_recipe
from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError
from diffpref.likelihood import jensen_shannon
from diffpref.methods._pictures import alter
from diffpref.models import registry
from diffpref.ranking import close_then_far
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
PIXELS = "vision_pixel_values"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = registry.get("vlm").tiny()
    family.save_network(family.network, folder, None)
    return folder


def write(folder: Path, plain: bool = False) -> Path:
    """Write pairs about pictures of noise, or of one colour each."""
    rows = []
    for number in range(8):
        draw = np.random.default_rng(number)
        shown = np.full((20, 24, 3), 20 * number) if plain else draw.integers(0, 256, (20, 24, 3))
        Image.fromarray(shown.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(
            {"prompt": "what?", "images": [f"{number}.png"], "chosen": "noise" + "!" * (number % 3), "rejected": "cat"}
        )
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def keys(model: Path, tmp_path: Path) -> Keys:
    def make(method: Any, **changes: Any) -> dict[str, Any]:
        return {
            "output": str(tmp_path / "run"),
            "model": {"family": "vlm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4},
            "data": {"source": str(write(tmp_path))},
            "method": method,
            "optim": {"learning_rate": 1e-2},
            "training": {"steps": 2, "batch_size": 4},
            **changes,
        }

    return make


def prepared(trainer: Trainer) -> Rows:
    trainer.setup()
    return trainer.plan.method.prepare(trainer.batches.batch(trainer.next_items()), trainer.updater.context)


@pytest.mark.parametrize("method", ["vdpo", "pami_vdpo"])
def test_rejected_are_the_chosen_tokens_after_another_picture(keys: Keys, method: str) -> None:
    trainer = Trainer(build_recipe(keys(method)))
    rows = prepared(trainer)
    assert (trainer.plan.taken, trainer.plan.groups) == (("chosen",), ("chosen", "rejected"))
    chosen, rejected = rows.groups["chosen"], rows.groups["rejected"]
    for tensors in (rows.inputs, rows.conditioning.tensors):
        for name, tensor in tensors.items():
            equal = (tensor[chosen] == tensor[rejected]).flatten(1).all(dim=1)
            assert equal.tolist() == [name != PIXELS] * 4, name
    again = prepared(Trainer(build_recipe(keys(method))))
    assert torch.equal(again.conditioning.tensors[PIXELS], rows.conditioning.tensors[PIXELS])
    assert rows.depends_on == (frozenset({"policy"}) if method == "pami_vdpo" else frozenset())


def test_identical_pictures_teach_nothing(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    source = {"source": str(write(tmp_path / "plain", plain=True))}  # tiles of one colour, in another order
    trainer = Trainer(build_recipe(keys({"vdpo": {"alterations": ["shuffle"]}}, data=source)))
    rows = list(trainer.steps())
    assert [row["loss"] for row in rows] == pytest.approx([math.log(2)] * 2, abs=1e-7)
    assert [row["grad_norm"] for row in rows] == pytest.approx([0.0] * 2, abs=1e-6)


@pytest.mark.parametrize("method", ["vdpo", "pami_vdpo"])
def test_an_answer_becomes_likelier_on_its_own_picture(keys: Keys, method: str) -> None:
    options = {"alterations": ["mask"], "strength": 0.9} | ({"weighting": "none"} if method == "pami_vdpo" else {})
    training = {"steps": 25, "batch_size": 8}
    trainer = Trainer(build_recipe(keys({method: options}, training=training, objective=[{"vdpo": {"beta": 1.0}}])))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-7) and rows[0]["rewards/margins"] == 0
    assert rows[0]["grad_norm"] > 0
    assert rows[-1]["loss"] < 0.6 and rows[-1]["rewards/accuracies"] >= 0.75


def test_the_copy_is_the_one_that_is_close_and_answered_otherwise(keys: Keys) -> None:
    options = {"candidates": 5, "top_fraction": 0.6, "weighting": "divergence"}
    trainer = Trainer(build_recipe(keys({"pami_vdpo": options})))
    rows = prepared(trainer)
    network, random = trainer.family.network, trainer.updater.context.random
    batch = trainer.batches.batch(trainer.next_items())
    clean = batch.conditioning["chosen"].tensors[PIXELS]
    ids, labels = batch.media["chosen"], batch.conditioning["chosen"].tensors["labels"]
    kinds = trainer.plan.method.alterations  # type: ignore[attr-defined]
    for row, key in enumerate(batch.keys):
        shown = [clean[row]] + [
            alter(clean[row], kinds, 0.5, random.numpy("altered picture", *key, number)) for number in range(5)
        ]
        said, seen = [], []
        place = labels[row, 1:] != -100
        for pixels in shown:
            with torch.no_grad():
                answer = network(input_ids=ids[row : row + 1], pixel_values=pixels)
                tower = network.get_image_features(pixel_values=pixels).pooler_output
            said.append(answer.logits[0, :-1][place].log_softmax(dim=-1))
            seen.append(torch.cat(list(tower)).mean(dim=0))
        relevance = torch.stack([torch.cosine_similarity(seen[0], one, dim=0) for one in seen[1:]])
        divergence = torch.stack([jensen_shannon(said[0], one).mean() for one in said[1:]])
        taken = int(close_then_far(relevance[None], divergence[None], top_fraction=0.6))
        assert torch.equal(rows.conditioning.tensors[PIXELS][rows.groups["rejected"][row]], shown[1 + taken])
        expected = divergence[taken].item() / math.log(2)
        assert rows.columns["weight"][row].item() == pytest.approx(expected, rel=1e-3)


def test_a_run_goes_on_where_it_was_to_the_bit(keys: Keys, tmp_path: Path) -> None:
    def exact(path: Path) -> list[dict[str, Any]]:
        rows = read_metrics(path / "metrics.jsonl")
        shown = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]
        return [{k: v.hex() if isinstance(v, float) else v for k, v in row.items()} for row in shown]

    method = {"pami_vdpo": {"candidates": 3}}
    list(
        Trainer(
            build_recipe(keys(method, output=str(tmp_path / "whole"), training={"steps": 4, "batch_size": 4}))
        ).steps()
    )
    for steps in (2, 4):
        part = {"steps": steps, "batch_size": 4, "checkpoint_every": 2}
        list(Trainer(build_recipe(keys(method, output=str(tmp_path / "parts"), training=part))).steps())
    assert exact(tmp_path / "whole") == exact(tmp_path / "parts")


def test_patches_in_a_row_are_refused(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys("vdpo")))
    trainer.setup()
    batch = trainer.batches.batch(trainer.next_items())
    told = batch.conditioning["chosen"]
    flat = Conditioning({**told.tensors, PIXELS: told.tensors[PIXELS].flatten(2)})
    with pytest.raises(ConfigError, match="patches in a row; take a model whose processor keeps pictures whole"):
        trainer.plan.method.prepare(replace(batch, conditioning={"chosen": flat}), trainer.updater.context)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ({"vdpo": {"alterations": ["frames"]}}, "'frames' alters the order of several pictures"),
        ({"vdpo": {"alterations": ["blur"]}}, "alterations"),
        ({"vdpo": {"strength": 1.0}}, "strength"),
        ({"pami_vdpo": {"candidates": 1}}, "candidates"),
    ],
)
def test_wrong_options_are_told(keys: Keys, method: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        list(Trainer(build_recipe(keys(method))).steps())


def test_objectives_of_other_samples_are_refused(keys: Keys) -> None:
    with pytest.raises(ConfigError, match="needs mismatched, single samples; method 'vdpo' prepares chosen, rejected"):
        Trainer(build_recipe(keys("vdpo", objective="kto"))).setup()


def test_clips_are_altered_in_time(keys: Keys, tmp_path: Path) -> None:
    source = write(tmp_path)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["images"] = [f"{(number + k) % 8}.png" for k in range(3)]
    clips = tmp_path / "clips.jsonl"
    clips.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared_rows = prepared(
        Trainer(build_recipe(keys({"vdpo": {"alterations": ["reverse"]}}, data={"source": str(clips)})))
    )
    pixels = prepared_rows.conditioning.tensors[PIXELS]
    assert pixels.shape[1:] == (3, 3, 16, 16)
    assert torch.equal(pixels[prepared_rows.groups["rejected"]], pixels[prepared_rows.groups["chosen"]].flip(1))


def test_the_pair_s_label_is_not_that_of_the_pictures_and_its_weight_stays(keys: Keys, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write(tmp_path).read_text().splitlines()]
    soft = tmp_path / "soft.jsonl"
    soft.write_text("".join(json.dumps({**row, "probability": 0.75, "weight": 2.0}) + "\n" for row in rows))
    data = {"source": str(soft)}
    plain = prepared(Trainer(build_recipe(keys("vdpo", data=data))))
    assert "preference" not in plain.columns and plain.columns["weight"].tolist() == [2.0] * 4
    weighed, bare = (
        prepared(Trainer(build_recipe(keys("pami_vdpo", data=given)))).columns["weight"]
        for given in (data, {"source": str(tmp_path / "pairs.jsonl")})
    )
    torch.testing.assert_close(weighed, 2 * bare)

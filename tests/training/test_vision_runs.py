"""Vision-language models through the same trainer: what they see counts, the libraries agree, runs resume exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref.config import build_recipe
from diffpref.core.errors import DataError, DiffprefError
from diffpref.models import load_family, registry
from diffpref.models.families.vlm import VisionLanguageModel
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, as transformers writes it."""
    folder = tmp_path_factory.mktemp("model")
    family = registry.get("vlm").tiny()
    assert isinstance(family, VisionLanguageModel)
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs about pictures of one colour each."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for number in range(12):
        colour = np.zeros((20 + number, 24, 3), np.uint8)
        colour[..., number % 3] = 255
        Image.fromarray(colour).save(folder / f"{number}.png")
        good, bad = ("red", "green", "blue")[number % 3], ("green", "blue", "red")[number % 3]
        rows.append({"prompt": "colour?", "images": [f"{number}.png"], "chosen": good, "rejected": bad})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def keys(model: Path, pictures: Path, tmp_path: Path) -> Keys:
    """Make the keys of a short run."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "output": str(tmp_path / "run"),
            "model": {"family": "vlm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4},
            "data": {"source": str(pictures / "pairs.jsonl")},
            "method": "language",
            "objective": "dpo",
            "optim": {"learning_rate": 1e-2},
            "training": {"steps": 4, "batch_size": 4},
            **changes,
        }

    return make


def exact(path: Path) -> list[dict[str, Any]]:
    rows = read_metrics(path / "metrics.jsonl")
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")} for row in rows
    ]


def test_dpo_starts_at_the_reference_and_learns_what_it_sees(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys(training={"steps": 30, "batch_size": 12})))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-7) and rows[0]["rewards/margins"] == 0
    assert rows[-1]["loss"] < 0.63 and rows[-1]["rewards/accuracies"] >= 0.75
    adapted = {name for name, p in trainer.family.network.named_parameters() if p.requires_grad}
    assert adapted and not [name for name in adapted if "vision" in name]


def test_log_probabilities_are_those_of_transformers(model: Path, keys: Keys) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    trainer = Trainer(build_recipe(keys()))
    trainer.setup()
    batch = trainer.batches.batch(trainer.next_items())
    rows = trainer.plan.method.prepare(batch, trainer.updater.context)
    ours = trainer.roles["policy"](rows)["token_logps"].sum(dim=1)
    plain, processor = AutoModelForImageTextToText.from_pretrained(model), AutoProcessor.from_pretrained(model)
    for group in ("chosen", "rejected"):
        for number, (index, _) in enumerate(trainer.next_items()):
            record = trainer.batches.encoder.records[trainer.batches.items[index].record_index]
            answer = record.candidates[0 if group == "chosen" else 1].text
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": record.prompt}]}]
            said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            start, whole = (
                processor.apply_chat_template(asked, add_generation_prompt=True),
                processor.apply_chat_template([*asked, said]),
            )
            picture = Image.open(str(record.inputs[0].path))
            told = processor(text=[whole], images=[[picture]], return_tensors="pt")
            length = processor(text=[start], images=[[picture]], return_tensors="pt")["input_ids"].shape[1]
            with torch.no_grad():
                logps = plain(**told).logits[0].log_softmax(dim=-1)
            ids = told["input_ids"][0]
            expected = sum(logps[place - 1, ids[place]] for place in range(length, len(ids)))
            row = int(rows.groups[group][number])
            assert ours[row].item() == pytest.approx(float(expected), abs=2e-5)


def test_another_picture_is_another_answer(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys()))
    trainer.setup()
    rows = trainer.plan.method.prepare(trainer.batches.batch(trainer.next_items()), trainer.updater.context)
    told = rows.conditioning.tensors
    assert told["vision_pixel_values"].shape[1:] == (1, 3, 16, 16)
    seen = trainer.roles["policy"](rows)["token_logps"]
    other = rows.conditioning.replace({"vision_pixel_values": told["vision_pixel_values"].flip(0)})
    changed = trainer.roles["policy"](type(rows)(**{**vars(rows), "conditioning": other}))["token_logps"]
    assert not torch.allclose(seen, changed)


def test_a_run_goes_on_where_it_was_to_the_bit(keys: Keys, tmp_path: Path) -> None:
    whole = keys(output=str(tmp_path / "whole"), training={"steps": 4, "batch_size": 4})
    list(Trainer(build_recipe(whole)).steps())
    for steps in (2, 4):
        part = {"steps": steps, "batch_size": 4, "checkpoint_every": 2}
        list(Trainer(build_recipe(keys(output=str(tmp_path / "parts"), training=part))).steps())
    assert exact(tmp_path / "whole") == exact(tmp_path / "parts")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_result_is_read_back(keys: Keys, model: Path, kind: str) -> None:
    trainer = Trainer(build_recipe(keys(adapter={"kind": kind})))
    list(trainer.steps())
    rows = trainer.plan.method.prepare(trainer.batches.batch(trainer.next_items()), trainer.updater.context)
    expected = trainer.roles["policy"](rows)["token_logps"]
    other = load_family("vlm", str(model))
    other.apply(str(trainer.output / ("lora" if kind == "lora" else "model")), kind == "lora")
    with torch.no_grad():
        found = other.answer(other.network, rows)["token_logps"]
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"images": ["gone.png"]}, "gone.png: cannot be read"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]},
            "the messages have places for 2 pictures, and the record holds 1",
        ),
    ],
)
def test_wrong_use_is_told_before_the_first_step(
    keys: Keys, pictures: Path, tmp_path: Path, row: dict[str, Any], line: str
) -> None:
    texts = {"chosen": "red", "rejected": "blue"}
    if "prompt" in row:
        texts = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}  # type: ignore[misc]
    first = {"prompt": "colour?", "images": [str(pictures / "0.png")], **texts, **row}
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(first) + "\n" for _ in range(4)))
    with pytest.raises(DiffprefError, match=line):
        Trainer(build_recipe(keys(data={"source": str(tmp_path / "bad.jsonl")}))).setup()


def test_a_language_model_that_sees_nothing_refuses_pictures(keys: Keys, tmp_path: Path) -> None:
    family = registry.get("causal_lm").tiny()
    family.save_network(family.network, tmp_path / "blind", None)
    with pytest.raises(DataError, match=r"has 1 pictures, and model\.family causal_lm sees none"):
        Trainer(build_recipe(keys(model={"family": "causal_lm", "path": str(tmp_path / "blind")}))).setup()


def test_a_prompt_with_pictures_is_not_cut(keys: Keys, pictures: Path) -> None:
    data = {"source": str(pictures / "pairs.jsonl"), "max_length": 30, "truncation": "prompt"}
    with pytest.raises(DataError, match="cutting its prompt would cut its pictures"):
        Trainer(build_recipe(keys(data=data))).setup()

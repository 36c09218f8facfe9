"""OPA-DPO on a model that sees: five kinds of rows, and what each of them was shown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref.config import build_recipe
from diffpref.core.contracts import Rows
from diffpref.core.errors import DataError
from diffpref.methods._pictures import corrupt
from diffpref.models import registry
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
PIXELS = "vision_pixel_values"
MARKED = [{"start": 2, "end": 5, "severity": 1, "image": True}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = registry.get("vlm").tiny()
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture
def keys(model: Path, tmp_path: Path) -> Keys:
    def make(changed: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        rows = []
        for number in range(4):
            shown = np.random.default_rng(number).integers(0, 256, (20, 24, 3))
            Image.fromarray(shown.astype(np.uint8)).save(tmp_path / f"{number}.png")
            row = {
                "prompt": "what?",
                "images": [f"{number}.png"],
                "gold": "a lynx",
                "chosen": "a cat",
                "rejected": "a dog",
            }
            if number == 0:
                row |= {"chosen_spans": MARKED, "rejected_spans": MARKED}
            rows.append({name: value for name, value in {**row, **(changed or {})}.items() if value is not None})
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {
            "output": str(tmp_path / "run"),
            "model": {"family": "vlm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4},
            "data": {"source": str(tmp_path / "data.jsonl")},
            "method": "opa_dpo",
            "optim": {"learning_rate": 1e-2},
            "training": {"steps": 2, "batch_size": 4},
            **changes,
        }

    return make


def prepared(trainer: Trainer) -> Rows:
    trainer.setup()
    return trainer.plan.method.prepare(trainer.batches.batch(trainer.next_items()), trainer.updater.context)


def test_the_good_answers_are_shown_a_corrupted_picture_too(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys()))
    rows = prepared(trainer)
    assert set(trainer.plan.taken) == {"chosen", "rejected", "gold"}
    assert set(trainer.plan.groups) == {"chosen", "rejected", "gold", "mismatched", "corrupted"}
    for made, own in (("mismatched", "gold"), ("corrupted", "chosen")):
        a, b = rows.groups[made], rows.groups[own]
        assert torch.equal(rows.inputs["ids"][a], rows.inputs["ids"][b])
        assert torch.equal(rows.inputs["labels"][a], rows.inputs["labels"][b])
        shown, true = rows.conditioning.tensors[PIXELS][a], rows.conditioning.tensors[PIXELS][b]
        hidden = (shown != true).all(dim=2)
        assert hidden.float().mean(dim=(1, 2, 3)).tolist() == [76 / 256] * 4  # rounded down
        assert torch.equal(shown, torch.where(hidden.unsqueeze(2), true.mean(dim=(-3, -2, -1), keepdim=True), true))
        draw = trainer.updater.context.random.numpy
        key = trainer.batches.keys(trainer.next_items())[0]
        assert torch.equal(shown[0], corrupt(true[0], 0.3, draw("corrupted picture", *key)))
    pixels = rows.conditioning.tensors[PIXELS]
    assert torch.equal(pixels[rows.groups["mismatched"]], pixels[rows.groups["corrupted"]])
    assert torch.equal(pixels[rows.groups["gold"]], pixels[rows.groups["rejected"]])
    assert rows.no_grad == frozenset()


def test_tokens_weigh_by_what_was_wrong(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys()))
    rows = prepared(trainer)
    first = [trainer.batches.items[index].record_index for index, _ in trainer.next_items()].index(0)
    # bytes are tokens: "a cat" and the end of the text
    for name, bad in (("chosen_token_score", 2.5), ("rejected_token_score", 2.5), ("corrupted_token_score", 3.0)):
        weights = rows.columns[name]
        assert weights[first, :6].tolist() == [1.0, 1.0, bad, bad, bad, 1.0]
        others = [row for row in range(4) if row != first]
        assert torch.equal(weights[others, :6], torch.ones(3, 6))
    options = {"severity_weights": [4.0, 3.0, 2.0, 1.0], "image_weight": 5.0}
    other = prepared(Trainer(build_recipe(keys(method={"opa_dpo": options}))))
    assert other.columns["chosen_token_score"].max() == 4.0 and other.columns["corrupted_token_score"].max() == 5.0


def test_tokens_weigh_1_where_nothing_is_marked(keys: Keys) -> None:
    rows = prepared(Trainer(build_recipe(keys({"chosen_spans": None, "rejected_spans": None}))))
    for name in ("chosen_token_score", "rejected_token_score", "corrupted_token_score"):
        assert torch.equal(rows.columns[name], torch.ones_like(rows.columns[name]))


@pytest.mark.parametrize(("mode", "start", "drop"), [("sequence", 4.4, 0.2), ("official_script", 6.4, 0.02)])
def test_a_run_starts_where_policy_and_reference_agree_and_learns(
    keys: Keys, mode: str, start: float, drop: float
) -> None:
    objective = [{"opa_dpo": {"beta": 0.5, "opa_mode": mode}}]
    trainer = Trainer(build_recipe(keys(objective=objective, training={"steps": 12, "batch_size": 4})))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == pytest.approx(start * math.log(2), abs=1e-6)
    assert rows[0]["grad_norm"] > 0 and rows[-1]["loss"] < rows[0]["loss"] - drop


def test_gradient_flows_through_what_was_seen_corrupted(keys: Keys) -> None:
    trainer = Trainer(build_recipe(keys()))
    rows = prepared(trainer)
    answer = trainer.roles["policy"](rows, grad=True)
    for group in ("mismatched", "corrupted"):
        values = trainer.updater.likelihood([f"{group}_token_log_ratio"], {"policy": answer, "reference": answer}, rows)
        assert values[f"{group}_token_log_ratio"].requires_grad


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"gold": None}, "the objective needs a 'gold' sample with each pair"),
        ({"chosen_spans": [{"start": 0, "end": 99}]}, "column 'chosen_spans': a span lies within the 5 characters"),
    ],
)
def test_data_that_do_not_fit_are_told_before_the_first_step(keys: Keys, changed: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line):
        Trainer(build_recipe(keys(changed))).setup()

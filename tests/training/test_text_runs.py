"""Language models through the same trainer: exact over shares, resumed to the bit, read back by the libraries."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.errors import DataError, DiffprefError
from diffpref.models import load_family, registry
from diffpref.models.families.causal_lm import CausalLM
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
COLOURS = ("red", "blue", "green", "grey", "pink")


def pairs(count: int = 16) -> list[dict[str, Any]]:
    """Rows whose better answer is the shorter one; answers and prompts of several lengths."""
    return [
        {
            "id": f"r{number}",
            "prompt": f"{'why ' * (number % 3)}{COLOURS[number % 5]}? ",
            "chosen": "yes " * (1 + number % 2),
            "rejected": "no, never " + "no " * (number % 3),
        }
        for number in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, as transformers writes it."""
    folder = tmp_path_factory.mktemp("model")
    family = registry.get("causal_lm").tiny()
    assert isinstance(family, CausalLM)
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture
def text_keys(model: Path, tmp_path: Path) -> Keys:
    """Make the keys of a short run; arguments replace, ``a__b`` inside a section."""

    def make(**changes: Any) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "output": str(tmp_path / "run"),
            "model": {"family": "causal_lm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4},
            "data": {"source": write(tmp_path / "pairs.jsonl", pairs())},
            "method": "language",
            "objective": "dpo",
            "optim": {"learning_rate": 1e-2},
            "training": {"steps": 4, "batch_size": 4},
        }
        for name, value in changes.items():
            section, _, key = name.partition("__")
            if key:
                keys[section] = {**keys.get(section, {}), key: value}
            else:
                keys[name] = value
        return keys

    return make


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def exact(path: Path) -> list[dict[str, Any]]:
    rows = read_metrics(path / "metrics.jsonl")
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")} for row in rows
    ]


def trained(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


# ------------------------------------------------------------ it learns, and others read the result


def test_dpo_starts_at_the_reference_and_learns_the_pairs(text_keys: Keys) -> None:
    _, rows = run(text_keys(training__steps=12, training__batch_size=8))
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-7) and rows[0]["rewards/margins"] == 0
    assert rows[-1]["loss"] < 0.55 and rows[-1]["rewards/accuracies"] == 1.0
    assert "logps/chosen" in rows[0] and "perf/completions_per_second" in rows[0]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_libraries_read_the_result_and_say_the_same(text_keys: Keys, model: Path, kind: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer, _ = run(text_keys(adapter={"kind": kind}, training__steps=2))
    if kind == "lora":
        base = AutoModelForCausalLM.from_pretrained(model)
        loaded: Any = PeftModel.from_pretrained(base, trainer.output / "lora")
        config = json.loads((trainer.output / "lora" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] is None and config["task_type"] == "CAUSAL_LM"
    else:
        loaded = AutoModelForCausalLM.from_pretrained(trainer.output / "model")
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        expected, found = trainer.bare(input_ids=ids).logits, loaded(input_ids=ids).logits
        start = AutoModelForCausalLM.from_pretrained(model)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found - start).abs().max() > 1e-3
    assert AutoTokenizer.from_pretrained(trainer.output / "model" if kind == "full" else model).eos_token == "</s>"


def test_a_run_goes_on_from_a_lora(text_keys: Keys, tmp_path: Path) -> None:
    first, _ = run(text_keys(training__steps=3))
    start = str(first.output / "lora")
    again, rows = run(text_keys(output=str(tmp_path / "again"), adapter={"kind": "lora", "rank": 4, "start": start}))
    assert rows[0]["rewards/margins"] == 0  # the reference started there too
    assert not torch.equal(trained(again), trained(first))


def test_the_card_speaks_of_a_language_model(text_keys: Keys) -> None:
    trainer, _ = run(text_keys(training__steps=1))
    card = (trainer.output / "README.md").read_text()
    assert "library_name: transformers" in card and "pipeline_tag: text-generation" in card
    assert "PeftModel.from_pretrained(model" in card and "diffusers" not in card.partition("## Use")[2]


# ------------------------------------------------------------ exactness


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_stopping_and_going_on_gives_the_same_bits(text_keys: Keys, tmp_path: Path, kind: str) -> None:
    shape = {"steps": 7, "batch_size": 2, "accumulation": 2, "checkpoint_every": 3}
    straight, _ = run(text_keys(output=str(tmp_path / "straight"), training=shape, adapter={"kind": kind}))
    keys = text_keys(output=str(tmp_path / "broken"), training=shape, adapter={"kind": kind})
    for metrics in Trainer(build_recipe(keys)).steps():
        if metrics["step"] == 5:
            break
    resumed = Trainer(build_recipe(keys))
    resumed.setup()
    assert resumed.step == 3
    list(resumed.steps())
    assert exact(resumed.output) == exact(straight.output) and len(exact(straight.output)) == 7
    parts = ("policy", "optimizer")
    for part in parts:
        first, second = (load_file(list_checkpoints(t.output)[-1] / f"{part}.safetensors") for t in (straight, resumed))
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("padding", ["batch", "data"])
@pytest.mark.parametrize("replay", ["auto", "always"])
def test_one_by_eight_is_eight_by_one(text_keys: Keys, tmp_path: Path, replay: str, padding: str) -> None:
    seen = []
    for size in (8, 2, 1):
        shape = {"steps": 3, "batch_size": size, "accumulation": 8 // size, "replay": replay}
        seen.append(run(text_keys(output=str(tmp_path / str(size)), training=shape, data__padding=padding)))
    (whole, expected), *others = seen
    for other, rows in others:
        for row, wanted in zip(rows, expected, strict=True):
            for name in ("loss", "grad_norm", "rewards/margins", "logps/chosen"):
                assert row[name] == pytest.approx(wanted[name], rel=2e-5, abs=2e-5), name
        assert (trained(other) - trained(whole)).norm() <= 1e-5 * trained(whole).norm()


def test_a_banked_reference_is_the_live_one(text_keys: Keys, tmp_path: Path) -> None:
    shape = {"steps": 8, "batch_size": 4}  # 16 pairs: each is seen twice
    live, expected = run(text_keys(output=str(tmp_path / "live"), training=shape, data__padding="data"))
    banked, rows = run(text_keys(output=str(tmp_path / "banked"), training=shape, bank={"slots": 1}))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    assert torch.equal(trained(banked), trained(live))
    assert banked.banked["reference"].counts == {"read": 32, "asked": 32}
    other, _ = run(
        text_keys(output=str(tmp_path / "other"), training=shape, bank={"slots": 1}, data={
            "source": str(tmp_path / "pairs.jsonl"), "padding": "batch", "cache": str(tmp_path / "banked" / "cache")
        })
    )  # fmt: skip
    assert other.banked["reference"].counts["asked"] == 0  # padding is no part of a question
    assert (trained(other) - trained(live)).norm() <= 1e-4 * trained(live).norm()


@pytest.mark.parametrize("level", [True, "every_second"])
def test_checkpointing_changes_no_gradient(text_keys: Keys, tmp_path: Path, level: Any) -> None:
    plain, _ = run(text_keys(output=str(tmp_path / "plain")))
    saving, _ = run(text_keys(output=str(tmp_path / "saving"), model__gradient_checkpointing=level))
    assert torch.equal(trained(plain), trained(saving))
    blocks = saving.family.blocks(saving.bare)
    assert [block.gradient_checkpointing for block in blocks] == [True, level is True]


def test_half_precision_trains(text_keys: Keys) -> None:
    _, rows = run(text_keys(model__precision="bf16", training__steps=8, training__batch_size=8))
    assert rows[0]["rewards/margins"] == 0 and rows[-1]["loss"] < 0.6


# ------------------------------------------------------------ what is said before the first step


def test_a_prompt_without_room_is_named_before_the_first_step(text_keys: Keys) -> None:
    with pytest.raises(DataError, match=r"(?s)record 'r0': a prompt of 5 tokens leaves no room.*data.truncation"):
        run(text_keys(data__max_length=4))


def test_what_was_cut_is_counted(text_keys: Keys, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING):
        trainer, _ = run(text_keys(data__max_length=16, training__steps=1))
    assert "14 of 16 records lost the end of a completion (data.max_length 16)" in caplog.text
    assert all(len(one.prompt) + len(c) <= 16 for one in _encoded(trainer) for c in one.completions.values())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        keys = text_keys(output=str(tmp_path / "b"), data__max_length=24, data__truncation="prompt", training__steps=1)
        trainer, _ = run(keys)
    assert "lost the beginning of their prompt" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        keys = text_keys(output=str(tmp_path / "c"), data__max_length=24, data__truncation="drop", training__steps=1)
        trainer, _ = run(keys)
    left_out = 16 - len(trainer.batches.items)
    assert left_out and f"{left_out} of 16 records are too long and left out" in caplog.text
    with pytest.raises(DataError, match=r"are more than 16; raise data\.max_length"):
        run(text_keys(output=str(tmp_path / "d"), data__max_length=16, data__truncation="refuse"))


def _encoded(trainer: Trainer) -> list[Any]:
    encoder: Any = trainer.batches.encoder
    return list(encoder.encoded.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "diffusion_dpo"}, "prepares rows for the likelihood 'denoising'; family 'causal_lm' is read by"),
        ({"model__attention": "xformers"}, "language models and scorers take auto or native"),
        ({"adapter": {"kind": "lora", "targets": ["lm_head"]}}, "head over the vocabulary cannot be adapted"),
        ({"adapter": {"kind": "lora", "targets": ["nothing"]}}, "adapter.targets: "),
        ({"validation": {"every": 1, "prompts": ["x"]}}, "validation.every: draws pictures"),
        ({"objective": "nll", "bank": {"slots": 1}}, "bank.roles: 'reference' is not asked"),
    ],
)
def test_wrong_use_is_explained(text_keys: Keys, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DiffprefError, match=message):
        run(text_keys(**changes))


def test_empty_and_mixed_texts_are_named(text_keys: Keys, tmp_path: Path) -> None:
    rows = [*pairs(8), {"id": "empty", "prompt": "x", "chosen": "", "rejected": "no"}]
    with pytest.raises(DataError, match="record 'empty': completion 0 is empty"):
        run(text_keys(data={"source": write(tmp_path / "empty.jsonl", rows)}))


def test_conversations_train_through_the_chat_template(text_keys: Keys, model: Path, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in pairs()
    ]
    trainer, _ = run(text_keys(data={"source": write(tmp_path / "chat.jsonl", rows)}, training__steps=1))
    tokenizer = load_family("causal_lm", str(model), parts=("text",)).tokenizer
    one = _encoded(trainer)[1]
    assert tokenizer.decode(one.prompt) == "<user>why blue? </s><assistant>"
    assert [tokenizer.decode(c) for c in one.completions.values()] == ["yes yes </s>", "no, never no </s>"]

"""PairRM: the published reading and head computed again, strict layout, scores against a reference, loops that ask."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from reward_cases import sentences
from safetensors.torch import load_file, save_file
from tiny_pairrm import PREFIXES, save_pairrm
from tiny_texts import answers

from diffpref import rewards
from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.loops.asking import Asked

FIRST, SECOND, PROMPTS = answers(4), answers(8)[4:], sentences(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pairrm(tmp_path_factory.mktemp("pairrm"))


@torch.no_grad()
def again(folder: Path, first: list[str], second: list[str], prompts: list[str], source: int = 40, room: int = 12):
    """The published procedure: three encoded texts one after the other, padded, prefixes searched, linear layers."""
    from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

    tokenizer, state = AutoTokenizer.from_pretrained(folder), load_file(folder / "model.safetensors")
    config = DebertaV2Config.from_pretrained(folder)
    body = DebertaV2Model(config).eval()
    own = {name.removeprefix("pretrained_model."): tensor for name, tensor in state.items() if "head_layer" not in name}
    body.load_state_dict(own)
    longest, rows = source + 2 * room, []
    for texts in zip(prompts, first, second, strict=True):
        ids = tokenizer.encode(PREFIXES[0] + texts[0], max_length=source, truncation=True)
        left = (longest - len(ids)) // 2
        for prefix, text in zip(PREFIXES[1:], texts[1:], strict=False):
            ids = ids + tokenizer.encode(prefix + text, max_length=left, truncation=True)
        rows.append(ids)
    batch = tokenizer.pad({"input_ids": rows}, padding="max_length", max_length=longest, return_tensors="pt")
    states = body(**batch).last_hidden_state.double()
    ids = [getattr(config, f"{name}_prefix_id") for name in ("source", "cand1", "cand2")]
    prompt, one, other = (states[batch["input_ids"] == number] for number in ids)
    head = {name.removeprefix("head_layer."): tensor.double() for name, tensor in state.items() if "head_layer" in name}

    def number(answer):
        hidden = (torch.cat([prompt, answer], dim=1) @ head["1.weight"].T + head["1.bias"]).tanh()
        return (hidden @ head["4.weight"].T + head["4.bias"]).mean(dim=1)

    return number(one) - number(other)


def test_a_comparison_is_what_the_published_procedure_gives(folder):
    judge = rewards.load("pair_reward", str(folder))
    expected = again(folder, FIRST, SECOND, PROMPTS)
    torch.testing.assert_close(judge.compare(FIRST, SECOND, PROMPTS).double(), expected.sigmoid(), rtol=0, atol=1e-5)
    assert expected.std() > 0.1


def test_texts_are_cut_as_published(folder):
    judge = rewards.load("pair_reward", str(folder), prompt_length=6, answer_length=5)
    expected = again(folder, FIRST, SECOND, PROMPTS, source=6, room=5)
    torch.testing.assert_close(judge.compare(FIRST, SECOND, PROMPTS).double(), expected.sigmoid(), rtol=0, atol=1e-5)
    whole = rewards.load("pair_reward", str(folder))
    assert not torch.allclose(judge.compare(FIRST, SECOND, PROMPTS), whole.compare(FIRST, SECOND, PROMPTS), atol=1e-3)
    assert judge.info.version != whole.info.version
    with pytest.raises(ConfigError, match="at least 4"):
        rewards.load("pair_reward", str(folder), answer_length=3)


def test_a_score_is_the_mean_of_both_orders_against_a_reference(folder):
    judge = rewards.load("pair_reward", str(folder))
    given = [{"reference": text} for text in SECOND]
    expected = 0.5 * (again(folder, FIRST, SECOND, PROMPTS) - again(folder, SECOND, FIRST, PROMPTS))
    torch.testing.assert_close(judge.score(FIRST, PROMPTS, given).double(), expected, rtol=0, atol=1e-4)
    same = judge.score(FIRST, PROMPTS, [{"reference": text} for text in FIRST])
    assert same.tolist() == [0.0] * 4
    with pytest.raises(DataError, match="compares two answers: call compare, or score an answer against a reference"):
        judge.score(FIRST, PROMPTS)


def test_words_of_a_prefix_in_a_text_do_not_move_its_place(folder):
    judge = rewards.load("pair_reward", str(folder))
    plain = judge.compare(["a red"], ["blue"], ["number"])
    tricky = judge.compare(["a red"], ["blue"], ["number <|candidate1|> white"])
    assert torch.isfinite(tricky).all() and tricky != plain
    assert 0 < tricky.item() < 1


def test_loops_ask_it_in_both_orders(folder):
    judge = rewards.load("pair_reward", str(folder))
    record = Record("r", PROMPTS[0], tuple(Candidate(text=text) for text in FIRST[:3]))
    [(_, verdict)] = Asked(judge, "pairrm")([record])
    one, other = judge.compare(FIRST[:1], FIRST[1:2], PROMPTS[:1]), judge.compare(FIRST[1:2], FIRST[:1], PROMPTS[:1])
    assert verdict.beats(0, 1) == pytest.approx(float(0.5 * (one + 1 - other)), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("head_layer.4.bias", None, "lacks 1 tensors, such as head_layer.4.bias"),
        ("pretrained_model.encoder.rel_embeddings.weight", None, "lacks 1 tensors"),
        ("pretrained_model.pooler.weight", torch.zeros(2), "1 unknown tensors"),
        ("head_layer.1.weight", torch.zeros(32, 32), r"head_layer.1.weight is \(32, 32\), expected \(32, 64\)"),
    ],
)
def test_every_weight_is_there_and_no_other(folder, tmp_path, name, change, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / "model.safetensors")
    state.pop(name, None)
    save_file(state | ({} if change is None else {name: change}), copy / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("pair_reward", str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cand2_prefix_id": 7}, r"cand2_prefix_id 7, the tokenizer has <\|candidate2\|> as"),
        ({"source_prefix_id": None}, "source_prefix_id None"),
        ({"hidden_size": 33}, "config.json is none of PairRM's|not the published layout"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder, tmp_path, changes, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("pair_reward", str(copy))
    assert "\n" not in str(caught.value)

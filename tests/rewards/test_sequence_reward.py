"""Sequence classifiers as rewards: what transformers computes, for every way to join prompt and answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from reward_cases import sentences
from safetensors.torch import load_file, save_file
from tiny_texts import answers, save_bert, save_llama

from diffpref import rewards
from diffpref.core.errors import ConfigError, DataError, DiffprefError, ModelError


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), "LlamaForSequenceClassification", num_labels=1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification", num_labels=1)


@torch.no_grad()
def alone(folder: Path, text: str | list[int], second: str | None = None) -> torch.Tensor:
    """What transformers says of one text."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if isinstance(text, list):
        return model(input_ids=torch.tensor([text])).logits[0]
    tokens = AutoTokenizer.from_pretrained(folder)(text, second, return_tensors="pt")
    return model(**tokens).logits[0]


def test_a_chat_template_is_used_where_there_is_one(llama):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    found = rewards.load("sequence_reward", str(llama)).score(answers(3), sentences(3))
    for score, answer, prompt in zip(found, answers(3), sentences(3), strict=True):
        text = f"<user>{prompt}</s><assistant>{answer}</s>".replace("</s>", tokenizer.eos_token)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert score.item() == pytest.approx(alone(llama, ids)[0].item(), abs=1e-5)


@pytest.mark.parametrize("template", ["pair", "plain"])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_other_ways_to_join(request, kind, template):
    folder = request.getfixturevalue(kind)
    found = rewards.load("sequence_reward", str(folder), template=template).score(answers(2), sentences(2))
    for score, answer, prompt in zip(found, answers(2), sentences(2), strict=True):
        expected = alone(folder, prompt, answer) if template == "pair" else alone(folder, prompt + answer)
        assert score.item() == pytest.approx(expected[0].item(), abs=1e-5)


def test_an_encoder_reads_a_pair_of_texts(bert):
    auto = rewards.load("sequence_reward", str(bert))
    pair = rewards.load("sequence_reward", str(bert), template="pair")
    assert torch.equal(auto.score(answers(3), sentences(3)), pair.score(answers(3), sentences(3)))
    assert auto.info.version != pair.info.version
    with pytest.raises(ConfigError, match="no chat template"):
        rewards.load("sequence_reward", str(bert), template="chat").score(answers(1), sentences(1))


@pytest.mark.parametrize("pad", [None, 2])
def test_a_model_without_padding_or_with_the_end_as_padding_scores_many_as_it_scores_one(tmp_path, pad):
    """With the end as padding, transformers reads the token before it; so must rows that are scored together."""
    folder = save_llama(tmp_path, "LlamaForSequenceClassification", num_labels=1, pad_token_id=pad)
    reward = rewards.load("sequence_reward", str(folder))
    same = ["a red circle", "a blue circl", "one two six."]
    found = reward.score(same, ["number "] * 3)
    end = reward.tokenizer.eos_token
    texts = [f"<user>number {end}<assistant>{answer}{end}" for answer in same]
    rows = [reward.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert len({len(row) for row in rows}) == 1 and rows[0][-1] == reward.tokenizer.eos_token_id == 2
    expected = torch.stack([alone(folder, row)[0] for row in rows])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_of_several_labels_one_is_chosen_and_its_log_odds_are_the_score(tmp_path):
    folder = save_bert(tmp_path, "BertForSequenceClassification", num_labels=3)
    with pytest.raises(ConfigError, match="3 labels; choose one with label: 0 LABEL_0, 1 LABEL_1, 2 LABEL_2"):
        rewards.load("sequence_reward", str(folder))
    with pytest.raises(ConfigError, match="has 3 labels, got label 3"):
        rewards.load("sequence_reward", str(folder), label=3)
    reward = rewards.load("sequence_reward", str(folder), label=1)
    chance = alone(folder, sentences(1)[0], answers(1)[0]).softmax(dim=0)[1].item()
    assert reward.score(answers(1), sentences(1)).sigmoid().item() == pytest.approx(chance, abs=1e-5)
    assert reward.info.pair_scale is None


def test_what_a_tokenizer_tells_beyond_the_networks_knowledge_is_left_out(llama, tmp_path):
    """Its kinds of tokens, which a Llama has not."""
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    reward = rewards.load("sequence_reward", str(folder), template="pair")
    reward.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in reward.tokenizer("a", "b")
    expected = rewards.load("sequence_reward", str(llama), template="pair").score(answers(2), sentences(2))
    assert torch.equal(reward.score(answers(2), sentences(2)), expected)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_micro_batch_changes_nothing(llama, micro_batch):
    expected = rewards.load("sequence_reward", str(llama)).score(answers(7), sentences(7))
    found = rewards.load("sequence_reward", str(llama), micro_batch=micro_batch).score(answers(7), sentences(7))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_too_long_a_text_is_refused_with_its_number(llama, bert):
    for folder, length in ((llama, 128), (bert, 48)):
        with pytest.raises(DataError, match=f"item 1: .* tokens, and the model reads {length}"):
            rewards.load("sequence_reward", str(folder)).score(["a", "red " * 200], ["a", "a"])


@pytest.mark.parametrize("missing", ["weight", "tokenizer", "config"])
def test_a_model_with_a_part_missing_is_refused(llama, tmp_path, missing):
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    if missing == "weight":
        state = load_file(folder / "model.safetensors")
        del state["score.weight"]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    elif missing == "config":
        (folder / "config.json").unlink()
    else:
        for file in folder.glob("*token*"):
            file.unlink()
    with pytest.raises(ModelError) as caught:
        rewards.load("sequence_reward", str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "message"), [(None, "needs a path"), ("./nowhere", "no such folder")])
def test_a_path_is_needed(path, message):
    with pytest.raises(DiffprefError, match=message):
        rewards.load("sequence_reward", path)


def test_a_folder_without_weights_is_told_what_belongs_there(tmp_path):
    with pytest.raises(ModelError, match="expected any sequence classifier of transformers: ") as caught:
        rewards.load("sequence_reward", str(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"reward 'sequence_reward': {tmp_path} holds no weights") and "\n" not in said
    assert "config.json, *.safetensors and the tokenizer's files" in said


def test_code_of_a_repository_is_never_run(llama, tmp_path):
    import json

    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForSequenceClassification": "code.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("from pathlib import Path\nPath('marker').touch()\n")
    with pytest.raises(ModelError):
        rewards.load("sequence_reward", str(folder))
    assert not (tmp_path / "marker").exists() and not Path("marker").exists()

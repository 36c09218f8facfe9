"""GPM: golden numbers, antisymmetry, cycles, the published reading computed again, and what runs leave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from reward_cases import sentences
from safetensors.torch import load_file, save_file
from tiny_gpm import SIZE, save_gpm, save_run
from tiny_texts import answers

from diffpref import rewards
from diffpref.core.errors import DataError, DiffprefError, ModelError
from diffpref.models.heads import Heads, load_heads, save_heads
from diffpref.rewards.gpm import odds

FIRST, SECOND, PROMPTS = answers(4), answers(8)[4:], sentences(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpm(tmp_path_factory.mktemp("gpm"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("gpm_run"))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([[0.6, 0.8], [0.1, -0.3]], [[-0.2, 0.5], [0.4, 0.2]], 0.89611604),
        ([[0.6, 0.8, 0.1, -0.2]], [[-0.2, 0.5, 0.3, 0.4]], 0.99631576),
    ],
)
def test_the_official_codes_probabilities(first, second, expected):
    one, other = (torch.tensor(x, dtype=torch.float64) for x in (first, second))
    found = odds(one, other, temperature=0.1, normalize=False).sigmoid().mean()
    assert found.item() == pytest.approx(expected, abs=1e-8)


def test_it_may_prefer_in_circles_and_scores_of_one_number_are_a_special_case():
    turns = torch.arange(3) * 2 * torch.pi / 3
    paper, rock, scissors = torch.stack([turns.cos(), turns.sin()], dim=1)[:, None]
    chances = [odds(one, other).sigmoid() for one, other in ((paper, rock), (rock, scissors), (scissors, paper))]
    assert min(chances) > 0.99
    better, worse = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    assert odds(better, worse, temperature=1.0, normalize=False).item() == pytest.approx(2.0)


@torch.no_grad()
def again(folder: Path, answers: list[str], prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) normalised embeddings and (N, D / 2) logits of the prompt's head, by transformers and two matrices."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, state = AutoTokenizer.from_pretrained(folder), load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    embeds, logits = [], []
    for answer, prompt in zip(answers, prompts, strict=True):
        end = tokenizer.eos_token
        begin = tokenizer(f"<user>{prompt}{end}").input_ids
        whole = tokenizer(f"<user>{prompt}{end}<assistant>{answer}{end}").input_ids
        whole[-1] = tokenizer.eos_token_id
        states = model(torch.tensor([whole]), output_hidden_states=True).hidden_states[-1][0]
        embeds.append(torch.nn.functional.normalize(states[-1] @ state["value_head.weight"].T, dim=0))
        if "prompt_head.weight" in state:
            logits.append(states[len(begin) - 1] @ state["prompt_head.weight"].T)
    return torch.stack(embeds).double(), torch.stack(logits).double() if logits else torch.zeros(
        len(answers), SIZE // 2
    )


@pytest.mark.parametrize("scales", ["example", "training"])
def test_a_published_model_is_read_as_published(folder, scales):
    judge = rewards.load("gpm", str(folder), scales=scales)
    (one, logits), (other, _) = again(folder, FIRST, PROMPTS), again(folder, SECOND, PROMPTS)
    share = logits.softmax(dim=1) if scales == "example" else (logits / 32**0.5).softmax(dim=1) * SIZE / 2
    expected = []
    for row in range(4):
        turn = torch.zeros(SIZE, SIZE, dtype=torch.float64)
        for block in range(SIZE // 2):
            turn[2 * block, 2 * block + 1], turn[2 * block + 1, 2 * block] = share[row, block], -share[row, block]
        expected.append(one[row] @ turn @ other[row] / 0.1)
    found = judge.compare(FIRST, SECOND, PROMPTS).double()
    torch.testing.assert_close(found, torch.stack(expected).sigmoid(), rtol=0, atol=1e-5)
    assert torch.stack(expected).std() > 0.3


def test_a_model_without_a_head_for_prompts_counts_all_blocks_alike(tmp_path):
    folder = save_gpm(tmp_path, prompt_head=False)
    (one, _), (other, _) = again(folder, FIRST, PROMPTS), again(folder, SECOND, PROMPTS)
    expected = (one[:, 0::2] * other[:, 1::2] - one[:, 1::2] * other[:, 0::2]).sum(dim=1) / 0.2
    found = rewards.load("gpm", str(folder), temperature=0.2).compare(FIRST, SECOND, PROMPTS).double()
    torch.testing.assert_close(found, expected.sigmoid(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("which", ["folder", "run"])
def test_both_orders_add_up_to_one(request, which):
    judge = rewards.load("gpm", str(request.getfixturevalue(which)))
    there, back = judge.compare(FIRST, SECOND, PROMPTS), judge.compare(SECOND, FIRST, PROMPTS)
    assert torch.allclose(there + back, torch.ones(4), atol=1e-6) and there.std() > 0.01
    assert torch.equal(judge.compare(FIRST, FIRST, PROMPTS), torch.full((4,), 0.5))


def test_a_score_is_the_log_odds_against_a_reference(folder):
    judge = rewards.load("gpm", str(folder))
    scores = judge.score(FIRST, PROMPTS, [{"reference": text} for text in SECOND])
    assert torch.allclose(scores.sigmoid(), judge.compare(FIRST, SECOND, PROMPTS), atol=1e-6)
    assert scores.abs().max() <= judge.info.range[1]
    with pytest.raises(DataError, match="call compare, or score an answer against a reference"):
        judge.score(FIRST, PROMPTS)


@pytest.mark.parametrize(("template", "shown"), [("plain", "{}{}</s>"), ("chat", "<user>{}</s><assistant>{}</s>")])
@torch.no_grad()
def test_what_a_run_left_is_read_as_it_was_trained(run, template, shown):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.parent / "base")
    model, heads = AutoModelForCausalLM.from_pretrained(run / "model").eval(), load_heads(run / "heads").state_dict()

    def embed(answer: str, prompt: str) -> torch.Tensor:
        text = shown.format(prompt, answer).replace("</s>", tokenizer.eos_token)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=template == "plain").input_ids
        last = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        return last @ heads["parts.embedding_weight"].T + heads["parts.embedding_bias"]

    one, other = (torch.stack([embed(*pair) for pair in zip(side, PROMPTS, strict=True)]) for side in (FIRST, SECOND))
    judge = rewards.load("gpm", str(run), template=template, temperature=1.0, normalize=False)
    expected = (one[:, 0::2] * other[:, 1::2] - one[:, 1::2] * other[:, 0::2]).sum(dim=1).sigmoid()
    torch.testing.assert_close(judge.compare(FIRST, SECOND, PROMPTS), expected, rtol=0, atol=1e-4)


def test_the_base_of_a_run_may_be_named(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "config.yaml").unlink()
    with pytest.raises(ModelError, match="name it with base"):
        rewards.load("gpm", str(copy))
    found = rewards.load("gpm", str(copy), base=str(run.parent / "base")).compare(FIRST, SECOND, PROMPTS)
    assert torch.equal(found, rewards.load("gpm", str(run)).compare(FIRST, SECOND, PROMPTS))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("other heads", "says score of 1 numbers; reward 'gpm' reads an embedding"),
        ("odd heads", "of 3 numbers; reward 'gpm' reads an embedding of an even number"),
        ("no weights", "heads but neither lora/ nor model/"),
        ("other width", "of width 8, and the model is of another"),
        ("broken config", "name it with base"),
    ],
)
def test_a_run_that_cannot_be_a_judge_is_refused(run, tmp_path, damage, message):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    made = {
        "other heads": Heads(32, 2, frozenset({"score"})),
        "odd heads": Heads(32, 2, frozenset({"embedding"}), 3),
        "other width": Heads(8, 2, frozenset({"embedding"}), 2),
    }
    if damage in made:
        save_heads(made[damage], copy / "heads")
    elif damage == "no weights":
        shutil.rmtree(copy / "model")
    else:
        (copy / "config.yaml").write_text("model: [")
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("gpm", str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("value_head.weight", None, "no value_head.weight in its safetensors"),
        ("value_head.weight", torch.zeros(3, 32), "expected an even number of rows"),
        ("prompt_head.weight", torch.zeros(3, 32), r"prompt_head.weight is \(3, 32\), expected"),
        ("model.norm.weight", None, "lacks 1 weights, such as norm.weight"),
    ],
)
def test_heads_of_another_shape_are_refused(folder, tmp_path, name, change, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / "model.safetensors")
    state.pop(name)
    save_file(state | ({} if change is None else {name: change}), copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("gpm", str(copy))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_template_is_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for file in copy.glob("chat_template*"):
        file.unlink()
    told = json.loads((copy / "tokenizer_config.json").read_text())
    told.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="no chat template"):
        rewards.load("gpm", str(copy))


def test_too_long_an_answer_is_refused(folder):
    with pytest.raises(DiffprefError, match="and the model reads 128"):
        rewards.load("gpm", str(folder)).compare(["red " * 200], ["a"], ["a"])


def test_versions_tell_settings_apart(folder, run):
    settings = [{}, {"temperature": 1.0}, {"normalize": False}, {"scales": "training"}, {"precision": "bfloat16"}]
    found = [rewards.load("gpm", str(folder), **options).info.version for options in settings]
    assert len({*found, rewards.load("gpm", str(run)).info.version}) == len(settings) + 1

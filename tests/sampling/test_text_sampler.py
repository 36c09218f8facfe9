"""Answers: a function of their prompt and seed, drawn from the model's distribution."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from diffpref.core.errors import ConfigError, DataError
from diffpref.pretraining.decoder import build, build_tokenizer
from diffpref.sampling import TextSampler, TextSettings
from diffpref.sampling.text import KeyedDraw, nucleus
from diffpref.words import instructions

SETTINGS = TextSettings(max_new_tokens=6, batch_size=5)
PROMPTS = [str(one) for one in instructions("unseen", 12)]
SEEDS = [7 * number for number in range(12)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def network(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return build(tokenizer)


def test_an_answer_does_not_depend_on_its_batch(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    sampler = TextSampler(network, tokenizer, SETTINGS)
    together = sampler(PROMPTS, SEEDS)
    turned = sampler(PROMPTS[::-1], SEEDS[::-1])[::-1]
    alone = [sampler([prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert together == turned == alone
    assert len(set(together)) == 12 and sampler(PROMPTS, [seed + 1 for seed in SEEDS]) != together
    assert sampler([], []) == []


def test_padding_changes_no_distribution(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    greedy = TextSampler(network, tokenizer, replace(SETTINGS, temperature=0.0))
    ids = tokenizer(PROMPTS[0]).input_ids
    assert len(ids) % 16  # it is padded
    expected = []
    with torch.no_grad():
        for _ in range(6):
            expected.append(int(network(torch.tensor([ids + expected])).logits[0, -1].argmax()))
    assert greedy.tokens([PROMPTS[0]], [0])[0] == expected[: len(greedy.tokens([PROMPTS[0]], [0])[0])]


def test_tokens_are_drawn_with_the_models_probabilities() -> None:
    settings = TextSettings(max_new_tokens=1, temperature=0.5)
    logits = torch.tensor([[0.3, -1.0, 1.1, 0.4]])
    seeds = list(range(4000))
    draw = KeyedDraw(seeds, 3, settings)
    scores = draw(torch.zeros(4000, 3, dtype=torch.int64), logits.expand(4000, -1))
    assert torch.equal(scores.isfinite().sum(-1), torch.ones(4000, dtype=torch.int64))
    counts = Counter(scores.argmax(-1).tolist())
    for token, probability in enumerate((logits[0] / 0.5).softmax(-1).tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=4 * (probability / 4000) ** 0.5)


def test_top_p_and_top_k_leave_the_likeliest() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    probabilities, tokens = nucleus(logits, TextSettings(top_p=0.7))
    assert tokens.tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(probabilities, torch.tensor([[0.625, 0.375, 0, 0]], dtype=torch.float64))
    probabilities, _ = nucleus(logits, TextSettings(top_k=1))
    assert probabilities.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    probabilities, _ = nucleus(logits, TextSettings(top_p=0.01))
    assert probabilities[0, 0] == 1.0  # the likeliest is always there


def test_an_answer_ends_with_its_end_token(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    end, stop = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(".")

    def force(mask: Tensor) -> object:
        width = mask.shape[1]
        return lambda ids, scores: torch.full_like(scores, -1e9).index_fill(
            1, torch.tensor([end if ids.shape[1] > width else stop]), 0.0
        )

    sampler = TextSampler(network, tokenizer, SETTINGS, processors=[force])
    assert sampler.tokens(PROMPTS[:3], SEEDS[:3]) == [[stop, end]] * 3
    assert sampler(PROMPTS[:3], SEEDS[:3]) == ["."] * 3


def test_what_a_checkpoint_says_of_generation_is_left_aside_and_kept(
    network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = TextSampler(network, tokenizer, SETTINGS)
    plain = sampler(PROMPTS, SEEDS)
    theirs = GenerationConfig(repetition_penalty=50.0, temperature=0.1, top_k=1, do_sample=True)
    before, network.generation_config = network.generation_config, theirs
    network.train()
    assert sampler(PROMPTS, SEEDS) == plain
    assert network.generation_config is theirs and network.training
    network.generation_config = before
    network.eval()


def test_a_chat_template_is_put_round_the_prompt(network: LlamaForCausalLM) -> None:
    chatty = build_tokenizer()
    with pytest.raises(ConfigError, match="has no chat template"):
        TextSampler(network, chatty, replace(SETTINGS, chat=True))
    chatty.chat_template = (
        "{% for m in messages %}sort {{ m.content }}{% endfor %}{% if add_generation_prompt %} . {% endif %}"
    )
    templated = TextSampler(network, chatty, replace(SETTINGS, chat=True))
    by_hand = TextSampler(network, chatty, SETTINGS)
    assert templated(PROMPTS, SEEDS) == by_hand([f"sort {prompt} ." for prompt in PROMPTS], SEEDS)
    assert templated(PROMPTS, SEEDS) != by_hand(PROMPTS, SEEDS)


def test_wrong_use_is_told(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    sampler = TextSampler(network, tokenizer, SETTINGS)
    with pytest.raises(ConfigError, match="got 2 prompts and 1 seeds"):
        sampler(PROMPTS[:2], [0])
    with pytest.raises(DataError, match="has no tokens"):
        sampler([""], [0])
    with pytest.raises(DataError, match=r"has 45 tokens; with 6 new ones that is more than the 48"):
        sampler(["ant " * 45], [0])
    for wrong in ({"top_p": 0.0}, {"temperature": -1.0}, {"max_new_tokens": 0}, {"top_k": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TextSettings(**wrong)

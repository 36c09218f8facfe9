"""Bias-driven hallucination sampling: heads stay, tails are the model's own, and the picture is mostly hidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.sampling.hidden import (
    HiddenSampler,
    HiddenSettings,
    flipped,
    guided_heads,
    hidden_tokens,
    sentences,
)
from diffpref.sampling.text import TextSettings

ANSWER = "A cat. It sat. Yes, so"
SETTINGS = HiddenSettings(text=TextSettings(max_new_tokens=6, temperature=1.0))


@pytest.fixture(scope="module")
def family() -> Any:
    return registry.get("vlm").tiny()


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8))


@pytest.mark.parametrize("text", ["A cat. It sat on 3.5 mats!  Yes", "One", "One.\nTwo?? Three.", " a . b"])
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
    assert all(part.strip() for part in sentences(text))


def test_heads_begin_their_sentences_and_never_hold_all_of_it() -> None:
    parts = sentences("A black cat sat. Stop. It was very late!")
    seen = set()
    for number in range(60):
        heads = guided_heads(parts, Random(0), "r", number, flip_prob=0.0)
        assert all(part.startswith(head) and 0 < len(head) < len(part) for part, head in zip(parts, heads, strict=True))
        seen.add(heads[0])
    assert seen == {"A", "A black", "A black cat"} and heads[1] == " Stop"
    assert guided_heads(parts, Random(0), "r", 3) == guided_heads(parts, Random(0), "r", 3)


def test_yes_and_no_are_flipped_half_of_the_time() -> None:
    heads = [guided_heads(["Yes, it is a cat."], Random(0), number)[0] for number in range(400)]
    share = sum(head.startswith("No") for head in heads) / 400
    assert share == pytest.approx(0.5, abs=0.08)  # three standard deviations
    assert [flipped(head) for head in (" NO. ", "yes", "Yesterday", "")] == [" YES. ", "no", "Yesterday", ""]


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.0), (0.99, 0.99), (1.0, 1.0)])
def test_a_share_of_the_picture_s_tokens_is_hidden_and_no_other(threshold: float, share: float) -> None:
    ids = torch.tensor([1, 7] * 5000)
    hidden = hidden_tokens(ids, 7, threshold, Random(0), "r")
    assert not hidden[::2].any() and hidden[1::2].float().mean().item() == pytest.approx(share, abs=0.005)
    assert torch.equal(hidden, hidden_tokens(ids, 7, threshold, Random(0), "r"))


def test_tails_are_what_the_model_says_when_it_attends_to_little() -> None:
    """The likeliest tokens, computed one at a time with every token in its own place."""
    family = registry.get("vlm").tiny()
    with torch.no_grad():  # attention that is not nearly even, so that places count
        for name, weight in family.network.get_decoder().named_parameters():
            if "norm" not in name:
                weight.mul_(8)
    settings = replace(SETTINGS, threshold=0.5, text=TextSettings(max_new_tokens=5, temperature=0.0))
    sampler = HiddenSampler(family, settings, Random(0))
    start = family.encode("what?", [ANSWER], [picture()])[0]
    before = ["A", "A cat. It"]
    found = sampler._continue(start, family.look([picture()]), before, "r", 0, sentence=False)
    hidden = hidden_tokens(torch.tensor(start), family.network.config.image_token_id, 0.5, Random(0), "r", 0)
    assert 0 < hidden.sum() < 4

    def likeliest(text: str, places: Callable[[Tensor], Tensor]) -> str:
        ids = [*start, *family.tokenizer(text, add_special_tokens=False)["input_ids"]]
        visible = torch.ones(1, len(ids) + 5, dtype=torch.int64)
        visible[0, : len(start)] = (~hidden).long()
        new: list[int] = []
        for _ in range(5):
            told = torch.tensor([[*ids, *new]])
            mask = visible[:, : told.shape[1]]
            shown = family.look([picture()])
            with torch.no_grad():
                answer = family.network(input_ids=told, attention_mask=mask, position_ids=places(mask), **shown)
            new.append(int(answer.logits[0, -1].argmax()))
        return str(family.tokenizer.decode(new, skip_special_tokens=True))

    assert found == [likeliest(text, lambda mask: torch.arange(mask.shape[1])[None]) for text in before]
    assert found != [likeliest(text, lambda mask: (mask.cumsum(dim=1) - 1).clamp(min=0)) for text in before]


def test_what_is_hidden_counts(family: Any) -> None:
    said = {}
    for threshold in (0.0, 1.0):
        for seed in (0, 1):
            settings = replace(SETTINGS, threshold=threshold)
            said[threshold, seed] = HiddenSampler(family, settings, Random(0))("what?", ANSWER, [picture(seed)], "r")
    assert said[1.0, 0] == said[1.0, 1]  # nothing of the picture is left
    assert said[0.0, 0] != said[1.0, 0]


def test_an_answer_keeps_every_head_and_is_a_function_of_its_key(family: Any) -> None:
    sampler = HiddenSampler(family, SETTINGS, Random(0))
    made = sampler("what?", ANSWER, [picture()], "r")
    assert made == sampler("what?", ANSWER, [picture()], "r") != sampler("what?", ANSWER, [picture()], "s")
    place = 0
    for head in guided_heads(sentences(ANSWER), Random(0), "r", 0):
        assert made.find(head, place) >= place
        place = made.find(head, place) + len(head)


def test_too_similar_answers_are_drawn_again_five_times_and_then_without_heads(family: Any) -> None:
    asked: list[str] = []

    def similarity(made: str, answer: str) -> float:
        asked.append(made)
        return 0.98 if len(asked) < 3 else 0.2

    made = HiddenSampler(family, SETTINGS, Random(0), similarity)("what?", ANSWER, [picture()], "r")
    assert len(asked) == 3 and made == asked[-1] and len(set(asked)) == 3
    asked.clear()
    free = HiddenSampler(family, SETTINGS, Random(0), lambda one, other: asked.append(one) or 1.0)  # type: ignore[func-returns-value]
    made = free("what?", ANSWER, [picture()], "r")
    assert len(asked) == 5 and made not in asked and not made.startswith("A")


def test_wrong_use_is_told(family: Any) -> None:
    with pytest.raises(ConfigError, match="sees no pictures"):
        HiddenSampler(registry.get("causal_lm").tiny(), SETTINGS, Random(0))
    sampler = HiddenSampler(family, SETTINGS, Random(0))
    for pictures, answer in (([], ANSWER), ([picture()], " ")):
        with pytest.raises(DataError, match="one of them is not there"):
            sampler("what?", answer, pictures, "r")
    with pytest.raises(DataError, match=re.escape("are more than the 128 that the model reads")):
        sampler("what?", ANSWER * 8, [picture()], "r")
    for options in ({"threshold": 1.5}, {"flip_prob": -1.0}, {"attempts": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            HiddenSettings(**options)  # type: ignore[arg-type]

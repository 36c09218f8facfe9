"""Prompts and completions as tokens: TRL's rules, and what gives way when there is too much."""

from __future__ import annotations

from typing import Any

import pytest

from diffpref.core.errors import DataError
from diffpref.models.decoders import tiny_tokenizer
from diffpref.models.tokenising import encode_completions, fit


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_texts_end_with_the_end_token_once() -> None:
    tokenizer = tiny_tokenizer()
    prompt, (one, two) = encode_completions(tokenizer, "why? ", ["because", "because</s>"])
    assert tokenizer.decode(prompt) == "why? " and one == two and one.count(tokenizer.eos_token_id) == 1


def test_conversations_follow_the_template() -> None:
    tokenizer = tiny_tokenizer()
    start = [said("system", "s"), said("user", "u")]
    prompt, (one,) = encode_completions(tokenizer, start, [[said("assistant", "a")]])
    assert tokenizer.decode(prompt) == "<system>s</s><user>u</s><assistant>" and tokenizer.decode(one) == "a</s>"
    several = [said("assistant", "a"), said("user", "v"), said("assistant", "b")]
    assert tokenizer.decode(encode_completions(tokenizer, start, [several])[1][0]).endswith("b</s>")


def test_the_prompt_is_shared_by_all_completions_where_tokens_merge() -> None:
    class Merging:
        """Joins the prompt's last letter with an x that follows it."""

        eos_token_id, bos_token_id, chat_template = 0, 1, None

        def __call__(self, text: str) -> dict[str, list[int]]:
            ids = [ord(letter) for letter in text.replace("ax", "\u0200")]
            return {"input_ids": ids}

    prompt, (one, two) = encode_completions(Merging(), "ba", ["x!", "y"])
    assert prompt == [98] and one == [0x200, 33, 0] and two == [97, 121, 0]


@pytest.mark.parametrize(
    ("prompt", "completions", "message"),
    [
        ("p", ["a", ""], "completion 1 is empty"),
        ([said("user", "u")], [[]], "completion 0 is empty"),
        ("p", [[said("assistant", "a")]], "all texts or all lists of messages"),
    ],
)
def test_what_cannot_be_put_before_a_model_is_named(prompt: Any, completions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_completions(tiny_tokenizer(), prompt, completions)


def test_an_empty_prompt_begins_with_the_beginning_token() -> None:
    tokenizer = tiny_tokenizer()
    prompt, _ = encode_completions(tokenizer, "", ["a"])
    assert prompt == [tokenizer.bos_token_id]
    tokenizer.bos_token = None
    with pytest.raises(DataError, match="has no token to begin with"):
        encode_completions(tokenizer, "", ["a"])
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="has no chat template"):
        encode_completions(tokenizer, [said("user", "u")], [[said("assistant", "a")]])


def test_what_fits_stays_as_it_is() -> None:
    fitted = fit([1, 2], [[3, 4], [5]], 4, "refuse")
    assert fitted is not None and fitted.prompt == (1, 2) and fitted.completions == ((3, 4), (5,))
    assert fitted.cut_prompt == fitted.cut_completions == 0


def test_each_rule_cuts_its_own() -> None:
    prompt, completions = [1, 2, 3, 4, 5], [[6, 7, 8], [9]]
    by_completion = fit(prompt, completions, 6, "completion")
    assert by_completion is not None and by_completion.completions == ((6,), (9,))
    assert by_completion.cut_completions == 1 and by_completion.cut_prompt == 0
    by_prompt = fit(prompt, completions, 6, "prompt")
    assert by_prompt is not None and by_prompt.prompt == (3, 4, 5) and by_prompt.completions == ((6, 7, 8), (9,))
    assert by_prompt.cut_prompt == 2 and by_prompt.cut_completions == 0
    kept = fit(prompt, completions, 6, "prompt", begin=1)
    assert kept is not None and kept.prompt == (1, 4, 5)
    both = fit(prompt, [[6] * 9], 6, "prompt", begin=1)
    assert both is not None and both.prompt == (1, 5) and both.completions == ((6, 6, 6, 6),)
    assert fit(prompt, completions, 6, "drop") is None
    with pytest.raises(DataError, match="5 tokens of prompt and 3 of a completion are more than 6"):
        fit(prompt, completions, 6, "refuse")
    with pytest.raises(DataError, match="leaves no room"):
        fit(prompt, completions, 5, "completion")

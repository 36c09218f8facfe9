"""Prompts written anew: contexts that flip a preference, examples of a user, instructions that an answer breaks."""

from __future__ import annotations

import math

import pytest
import torch

from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data.rewriting import (
    Instruction,
    contradictions,
    few_shot,
    in_contexts,
    mixed_preference,
    opposed_prompts,
    with_examples,
)
from diffpref.objectives import dpo


def record(name: str, user: str = "ann", probability: float = 1.0, prompt: str = "") -> Record:
    candidates = (Candidate(text=f"good {name}"), Candidate(text=f"bad {name}"))
    judgement = Judgement(0, 1, probability)
    return Record(name, prompt or f"ask {name}", candidates, (judgement,), meta={"user": user})


def test_two_contexts_flip_the_preference() -> None:
    first, second = in_contexts(record("a"), ("Be brief.", "Be {prompt} thorough."))
    assert first.prompt == "Be brief.\nask a" and second.prompt == "Be {prompt} thorough.\nask a"
    assert (first.judgements[0].first, second.judgements[0].first) == (0, 1)
    assert first.id != second.id and first.candidates == second.candidates


def test_a_model_blind_to_contexts_cannot_do_better_than_ln_2_on_flipped_pairs() -> None:
    margin = torch.linspace(-3, 3, 13, dtype=torch.float64)
    zero = torch.zeros_like(margin)
    kept = dpo(chosen_log_ratio=margin, rejected_log_ratio=zero, beta=1.0)
    flipped = dpo(chosen_log_ratio=zero, rejected_log_ratio=margin, beta=1.0)
    assert ((kept + flipped) / 2 >= math.log(2) - 1e-12).all()


def test_a_preference_is_mixed_over_contexts() -> None:
    assert mixed_preference([0.25, 0.75], [0.8, 0.4]) == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"add up to 0\.5"):
        mixed_preference([0.5], [0.8])


def test_examples_come_before_the_prompt_and_none_leaves_it() -> None:
    shown = with_examples(record("a"), [record("b"), record("c", probability=0.0)])
    assert shown.prompt == (
        "Prompt: ask b\nPreferred answer: good b\nOther answer: bad b\n\n"
        "Prompt: ask c\nPreferred answer: bad c\nOther answer: good c\n\nask a"
    )
    assert with_examples(record("a"), []) == record("a")


def test_examples_are_of_the_same_user_and_do_not_depend_on_the_order_of_records() -> None:
    records = [record(f"{user}{number}", user) for user in ("ann", "ben") for number in range(5)]
    made = {one.id: one.prompt for one in few_shot(records, Random(0), 2)}
    again = {one.id: one.prompt for one in few_shot(records[::-1], Random(0), 2)}
    assert made == again
    for name, prompt in made.items():
        assert prompt.count("Preferred answer") == 2 and prompt.endswith(f"ask {name}")
        other = "ben" if name.startswith("ann") else "ann"
        assert other not in prompt and f"good {name}" not in prompt
    assert {one.id: one.prompt for one in few_shot(records, Random(1), 2)} != made
    assert [one for one in few_shot(records, Random(0), 0)] == records


def test_users_who_contradict_themselves_are_found() -> None:
    same = [record("a"), record("b", prompt="ask a")]
    turned = record("c", prompt="ask a", probability=0.0)
    texts = (Candidate(text="good a"), Candidate(text="bad a"))
    turned = Record("c", "ask a", texts, turned.judgements, meta=turned.meta)
    other = Record("d", "ask a", texts, turned.judgements, meta={"user": "ben"})
    assert contradictions([*same, other]) == []
    assert contradictions([*same, turned]) == [("a", "c")]


def test_an_answer_satisfies_the_first_prompt_and_breaks_the_second() -> None:
    brief = Instruction("Use at most three words.", "Use more than three words.", lambda text: len(text.split()) <= 3)
    tea = Instruction("Mention tea.", "Do not mention tea.", lambda text: "tea" in text)
    better, worse = opposed_prompts("Greet me.", "hello there", [brief, tea], broken=[1])
    assert better == "Greet me. Use at most three words. Do not mention tea."
    assert worse == "Greet me. Use at most three words. Mention tea."
    with pytest.raises(DataError, match="at least one of 2"):
        opposed_prompts("Greet me.", "hello", [brief, tea], broken=[])


def test_a_record_that_is_no_judged_pair_of_texts_is_refused() -> None:
    with pytest.raises(DataError, match="one judgement"):
        in_contexts(Record("x", "p", ()), ("a", "b"))
    with pytest.raises(DataError, match="no text"):
        with_examples(record("a"), [Record("x", "p", (Candidate(), Candidate()), (Judgement(0, 1, 1.0),))])
    with pytest.raises(DataError, match="no 'user'"):
        list(few_shot([Record("x", "p", ())], Random(0), 1))

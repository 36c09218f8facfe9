"""The words world: its instructions, their splits, and the judge of the answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.pretraining.decoder import mistake
from diffpref.words import FACTS, SPLITS, Instruction, facts, instructions, parts, score
from diffpref.words.grammar import WORDS, split_of

ASKED = st.sampled_from(instructions("seen", 400))
ANT_CAT = Instruction.parse("sort animals loud : pear cat hammer ant =")


def test_the_splits_never_change() -> None:
    """The bundled decoder was trained on one of them: another split would make its card untrue."""
    assert [str(instructions(split, 1)[0]) for split in SPLITS] == [
        "reverse fruits quiet : axe rope apple brush date ant =",
        "reverse all quiet : lemon drill date bee dog brush saw =",
        "sort fruits loud : hen grape cat drill pear lemon hammer =",
    ]


def test_the_splits_share_no_instruction_and_a_longer_list_begins_with_the_shorter() -> None:
    lists = {split: instructions(split, 3000) for split in SPLITS}
    texts = [str(one) for found in lists.values() for one in found]
    assert len(set(texts)) == 9000
    assert all(split_of(one) == split for split, found in lists.items() for one in found)
    assert instructions("unseen", 3000)[:50] == instructions("unseen", 50)
    assert all(2 <= len(one.wanted) <= len(one.words) <= 7 for found in lists.values() for one in found)
    with pytest.raises(DataError, match="unknown split 'unsen'"):
        instructions("unsen", 1)


@given(ASKED)
def test_a_prompt_reads_back(asked: Instruction) -> None:
    assert Instruction.parse(str(asked)) == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sort animals loud : ant cat",  # not closed
        "sort birds loud : ant cat =",
        "sort animals loud : ant whale =",
        "sort animals loud : ant ant =",
        "sort animals loud : ANT =",
        "sort animals loud : pear axe =",  # asks for nothing
        "sort animals loud : ant bee cat dog fox hen owl pig =",  # too many
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not an instruction of the words world"):
        Instruction.parse(text)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("keep all quiet : pear cat hammer =", "pear cat hammer ."),
        ("reverse all loud : pear cat hammer =", "HAMMER CAT PEAR ."),
        ("sort fruits quiet : pear cat fig =", "fig pear ."),
        ("sort animals loud : pear cat hammer ant =", "ANT CAT ."),
    ],
)
def test_the_right_answer(prompt: str, answer: str) -> None:
    asked = Instruction.parse(prompt)
    assert asked.answer == answer
    assert score(answer, asked) == 1.0 and all(facts(answer, asked).values())


@pytest.mark.parametrize(
    ("answer", "met"),
    [  # closed, count, first, order, selection, letters
        ("CAT ANT .", (1, 1, 0, 0, 1, 1)),
        ("ANT CAT", (0, 1, 1, 1, 1, 1)),
        ("ANT . CAT .", (0, 1, 1, 1, 1, 1)),
        ("ant CAT .", (1, 1, 1, 1, 1, 0.5)),
        ("ANT .", (1, 0.5, 1, 0, 0.5, 1)),
        ("ANT CAT CAT .", (1, 0.5, 1, 1, 2 / 3, 1)),
        ("ANT HAMMER CAT .", (1, 0.5, 1, 1, 2 / 3, 1)),
        ("pear .", (1, 0.5, 0, 0, 0, 0)),
        (".", (1, 0, 0, 0, 0, 0)),
        ("", (0, 0, 0, 0, 0, 0)),
        ("ANT " * 9, (0, 0, 1, 0, 0.1, 1)),
    ],
)
def test_the_judge_tells_the_parts(answer: str, met: tuple[float, ...]) -> None:
    assert parts(answer, ANT_CAT) == pytest.approx(dict(zip(FACTS, met, strict=True)))
    assert score(answer, ANT_CAT) == pytest.approx(sum(met) / 6)
    assert facts(answer, ANT_CAT) == {name: value == 1 for name, value in zip(FACTS, met, strict=True)}


@given(ASKED, st.lists(st.sampled_from([*WORDS, *map(str.upper, WORDS), "."]), max_size=9))
def test_all_facts_hold_for_the_right_answer_only(asked: Instruction, words: list[str]) -> None:
    answer = " ".join(words)
    assert 0.0 <= score(answer, asked) <= 1.0
    assert all(facts(answer, asked).values()) == (answer == asked.answer) == (score(answer, asked) == 1.0)


@given(ASKED, st.integers(0, 2**31))
def test_a_mistake_is_a_near_miss(asked: Instruction, seed: int) -> None:
    answer = mistake(asked, Random(seed).numpy("mistake"))
    assert answer != asked.answer
    assert 0.4 < score(answer, asked) < 1.0

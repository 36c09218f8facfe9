"""Each loop's own step, without a model: who draws, what the verdict becomes, what a round is held to, what follows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import ConfigError
from diffpref.data import pair_view
from diffpref.loops.asking import Nothing, Told
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.relabelling import augmented, goal_of, with_goal
from diffpref.loops.stage import Iterate, Stage, Verdict
from diffpref.ranking import preference_matrix, win_rates

INITIAL, FIRST, SECOND, HALF = Iterate(), Iterate(lora="a"), Iterate(lora="b"), Iterate(lora="half")
LATER = Stage(1, 4, (INITIAL, FIRST), (FIRST,), (Path("000"),))


def make(name: str, **options: Any) -> LoopMethod:
    return registry.get(name).model_validate(options)


def record(count: int, judgements: tuple[Judgement, ...] = ()) -> Record:
    return Record("r", "p", tuple(Candidate(text=f"answer {n}") for n in range(count)), judgements)


def labelled(method: LoopMethod, told: Verdict, count: int, stage: Stage = LATER, given: Record | None = None):
    uniform = itertools.cycle([0.3, 0.7, 0.1, 0.9]).__next__
    return list(method.label(given or record(count), told, uniform, stage))


def sides(found: Record) -> list[tuple[int, int]]:
    return [(j.first, j.second) for j in found.judgements]


# ---------------------------------------------------------------- anchors


@pytest.mark.parametrize(
    "name", ["iterative_dpo", "spin", "sppo", "dno", "selm", "curry_dpo", "spa", "apo_accelerated"]
)
def test_the_anchor_moves_with_the_policy(name: str) -> None:
    """No role is changed: the reference of a run is what its policy begins with, the previous iterate."""
    assert make(name).training(LATER).roles == {}


@pytest.mark.parametrize("name", ["xpo", "vpo", "rso", "nash_md", "ipo_md", "egpo"])
def test_the_anchor_stays_the_initial_model(name: str) -> None:
    assert make(name).training(LATER).roles == {"reference": {"source": "initial"}}
    assert make(name).training(Stage(0, 2)).roles == {}  # the first round begins there


def test_iterative_nash_has_two_anchors_at_once() -> None:
    found = make("inpo_nash").training(LATER)
    assert found.roles == {"reference": {"source": "initial"}, "previous": {"source": "copy"}}
    assert found.objective == [{"inpo_nash": {}}]


def test_iterative_dpo_can_keep_its_anchor_and_takes_any_pairing() -> None:
    assert make("iterative_dpo", anchor="initial").training(LATER).roles
    (found,) = labelled(make("iterative_dpo", pairing="all_pairs"), Told([1.0, 3.0, 2.0]), 3)
    assert sides(found) == [(1, 2), (1, 0), (2, 0)]
    assert labelled(make("iterative_dpo", min_gap=2.5), Told([1.0, 3.0, 2.0]), 3) == []


# ---------------------------------------------------------------- games


def test_spin_lets_the_data_win_against_the_previous_iterate_and_asks_nobody() -> None:
    method = make("spin")
    (drawer,) = method.drawers(LATER)
    assert (drawer.iterate, drawer.count) == (FIRST, 1) and method.asks(LATER) == "nothing"
    given = record(3, (Judgement(0, 1, 0.1),))  # the data's winner is candidate 1, the drawn answer stands last
    (found,) = labelled(method, Nothing(), 3, given=given)
    assert sides(found) == [(1, 2)] and found.judgements[0].probability == 1.0
    (single,) = labelled(method, Nothing(), 2)
    assert sides(single) == [(0, 1)]
    assert make("spin", loss="hinge").training(LATER).objective == [{"rso": {}}]


def test_sppo_regresses_on_win_rates_of_the_answers_against_each_other() -> None:
    scores = [0.0, 2.0, 1.0]
    (found,) = labelled(make("sppo"), Told(scores, 0.7), 3)
    expected = win_rates(preference_matrix(scores, scale=0.7))
    (pair,) = pair_view([found])
    assert (pair.chosen, pair.rejected) == (1, 0)
    assert pair.columns["chosen_win_rate"] == pytest.approx(expected[1])
    assert pair.columns["rejected_win_rate"] == pytest.approx(expected[0])
    (bare,) = labelled(make("sppo", include_self=False), Told(scores, 0.7), 3)
    assert pair_view([bare])[0].columns["chosen_win_rate"] > expected[1]
    assert labelled(make("sppo"), Told([1.0, 1.0]), 2) == []


def test_dno_pairs_by_the_gap_of_win_rates_against_the_policys_own_answers() -> None:
    method = make("dno", candidates=2, min_gap=0.2)
    told = Told([5.0, 0.0, 1.0])  # a teacher's answer, then two of the policy
    (found,) = labelled(method, told, 3)
    teacher = (told.beats(0, 1) + told.beats(0, 2)) / 2
    assert [c.scores[-1].value for c in found.candidates] == pytest.approx(
        [teacher, told.beats(1, 2), told.beats(2, 1)]
    )
    assert sides(found) == [(0, 2), (0, 1), (2, 1)]
    assert sides(labelled(make("dno", candidates=2, min_gap=0.6), told, 3)[0]) == [(0, 1)]
    assert make("dno").training(LATER).objective == [{"dno": {}}]
    assert make("dno", labels="hard").training(LATER).objective == [{"dpo": {}}]


def test_nash_md_meets_an_answer_of_the_geometric_mixture() -> None:
    own, opponent = make("nash_md", mixture=0.25).drawers(LATER)
    assert (own.iterate, own.count, own.mixed_with) == (FIRST, 2, None)
    assert (opponent.iterate, opponent.mixed_with, opponent.share, opponent.count) == (FIRST, INITIAL, 0.25, 1)
    told = Told([0.0, 1.0, 0.5])
    (found,) = labelled(make("nash_md"), told, 3)
    (pair,) = pair_view([found], drop_ties=False)
    assert (pair.chosen, pair.rejected) == (1, 0)
    assert pair.columns["chosen_win_rate"] == told.beats(1, 2)
    assert pair.columns["rejected_win_rate"] == told.beats(0, 2)
    assert len(labelled(make("nash_md"), Told([1.0, 1.0, 0.0]), 3)) == 1  # equal answers are a target too


def test_ipo_md_draws_both_answers_from_the_mixture_and_keeps_the_probability() -> None:
    (drawer,) = make("ipo_md").drawers(LATER)
    assert (drawer.count, drawer.mixed_with, drawer.share) == (2, INITIAL, 0.125)
    told = Told([0.0, 1.0])
    assert labelled(make("ipo_md"), told, 2)[0].judgements[0].probability == told.beats(0, 1)
    assert labelled(make("ipo_md", labels="hard"), told, 2)[0].judgements[0].probability == 0.0
    assert make("ipo_md").training(LATER).values == {"data.drop_ties": False}


def test_egpo_steps_ahead_and_starts_over_against_what_it_saw() -> None:
    method = make("egpo")
    ahead = Stage(2, 4, (INITIAL, INITIAL, FIRST), (HALF, FIRST), (Path("0"), Path("1")))
    pair, opponent = method.drawers(ahead)
    assert pair.iterate == opponent.iterate == FIRST and (pair.count, opponent.count) == (2, 1)
    assert method.feed(ahead).source == "prompts" and method.feed(ahead).part == 1
    assert method.advance(ahead, HALF, Path()) == FIRST  # the step is undone
    back = Stage(3, 4, (*ahead.starts, FIRST), (*ahead.results, HALF), (*ahead.stores, Path("2")))
    (opponent,) = method.drawers(back)
    assert opponent.iterate == HALF and opponent.count == 1  # a new third answer, of the policy of half the way
    feed = method.feed(back)
    assert (feed.source, feed.part, feed.keep) == ("round", 2, 2)  # the same two answers
    assert back.policy == FIRST and method.advance(back, SECOND, Path()) == SECOND
    with pytest.raises(ConfigError, match="even number"):
        method.num_parts(3)


# ---------------------------------------------------------------- online


def test_oaif_judges_two_fresh_answers_and_goes_on_with_one_run() -> None:
    method = make("oaif", updates=3)
    (drawer,) = method.drawers(LATER)
    assert (drawer.iterate, drawer.count) == (FIRST, 2)
    assert drawer.stream != method.drawers(Stage(0, 2))[0].stream  # no answer is drawn twice
    found = method.training(LATER)
    assert found.continues and found.values == {"training.steps": 6} and found.roles == {}
    (judged,) = labelled(method, Told([0.0, 1.0]), 2)
    assert judged.judgements[0].probability == 0.0
    assert labelled(method, Told([1.0, 1.0]), 2) == []
    assert make("oaif", loss="slic").training(LATER).objective == [{"rso": {}}]


def test_rso_draws_from_the_initial_model_and_rejects() -> None:
    method = make("rso", candidates=6, accepted=4, temperature=0.0, loss="sigmoid")
    (drawer,) = method.drawers(LATER)
    assert (drawer.iterate, drawer.count) == (INITIAL, 6)
    (found,) = labelled(method, Told([0.0, 5.0, 1.0, 4.0, 2.0, 3.0]), 6)
    used = {side for pair in sides(found) for side in pair}
    assert used == {1, 3, 4, 5} and len(found.judgements) == 2  # the best four, each in one pair
    assert all(Told([0.0, 5.0, 1.0, 4.0, 2.0, 3.0]).beats(*pair) > 0.5 for pair in sides(found))
    games = labelled(
        make("rso", candidates=6, accepted=4, temperature=0.0, ranking="tournament"),
        Told([0.0, 5.0, 1.0, 4.0, 2.0, 3.0]),
        6,
    )
    assert len(games[0].judgements) == 3
    same = replace(record(6), candidates=(Candidate(text="a"),) * 6)
    assert labelled(method, Told([1.0] * 6), 6, given=same) == []  # too few different answers
    assert method.training(LATER).objective == [{"dpo": {}}] and make("rso").training(LATER).objective == [{"rso": {}}]


@pytest.mark.parametrize(("name", "options", "tagged", "count"), [
    ("selm", {"candidates": 2}, 0, 2),   # the policy's own first answer
    ("xpo", {}, 1, 2),                   # the initial model's answer, one of the pair
    ("vpo", {"candidates": 2}, 2, 3),    # the initial model's answer, outside the pair
])  # fmt: skip
def test_optimism_is_on_the_answer_that_each_method_says(name: str, options: Any, tagged: int, count: int) -> None:
    method = make(name, **options)
    drawers = method.drawers(LATER)
    assert drawers[0].iterate == FIRST and sum(drawer.count for drawer in drawers) == count
    assert [drawer.iterate for drawer in drawers[1:]] == ([] if name == "selm" else [INITIAL])
    (found,) = labelled(method, Told([0.0, 1.0, 9.0][:count]), count)
    (pair,) = pair_view([found])
    assert (pair.chosen, pair.rejected) == (1, 0) and pair.groups["calibration"] == tagged


def test_selm_with_data_tags_its_own_answer_behind_those_of_the_data() -> None:
    (found,) = labelled(make("selm", candidates=1), Told([0.0, 1.0, 2.0]), 3)
    assert sides(found) == [(2, 0)] and found.meta["calibration"] == "2"


def test_vpo_offline_is_pessimistic_about_the_chosen_answers_of_the_data() -> None:
    method = make("vpo", mode="offline")
    assert method.drawers(LATER) == [] and method.asks(LATER) == "nothing"
    (found,) = labelled(method, Nothing(), 2, given=record(2, (Judgement(0, 1, 0.0),)))
    assert found.meta["calibration"] == "1"
    assert method.training(LATER).objective == [{"vpo": {"attitude": "pessimistic"}}]
    assert make("vpo").training(LATER).objective == [{"vpo": {"attitude": "optimistic"}}]


def test_hypo_keeps_the_datas_pairs_and_tags_a_fresh_answer_of_the_policy() -> None:
    method = make("hypo")
    assert method.feed(LATER).source == "data" and method.feed(LATER).part == 0
    (drawer,) = method.drawers(LATER)
    assert drawer.iterate == FIRST
    (found,) = labelled(method, Nothing(), 3, given=record(3, (Judgement(0, 1, 1.0),)))
    assert sides(found) == [(0, 1)] and pair_view([found])[0].groups["online"] == 2


def test_ofs_goes_on_with_two_modules_that_its_method_swaps() -> None:
    found = make("ofs_dpo", swap_every=7).training(LATER)
    assert found.continues and found.methods["tokens"] == {"ofs_dpo": {"swap_every": 7}}


# ---------------------------------------------------------------- stages and labels


def test_the_curriculum_trains_on_one_set_of_answers_from_easy_to_hard() -> None:
    method = make("curry_dpo", candidates=3)
    start = Stage(0, 2)
    (found,) = labelled(method, Told([1.0, 3.0, 2.0]), 3, start)
    assert sides(found) == [(1, 0)] and sum(d.count for d in method.drawers(start)) == 3
    assert method.feed(LATER).source == "round" and method.feed(LATER).part == 0 and method.drawers(LATER) == []
    (harder,) = labelled(method, Nothing(), 3, LATER, found)
    assert sides(harder) == [(1, 2)]
    (turned,) = labelled(make("curry_dpo", candidates=3, order="hard_to_easy"), Told([1.0, 3.0, 2.0]), 3, start)
    assert sides(turned) == [(1, 2)]
    with pytest.raises(ConfigError, match="3 candidates give 2 stages"):
        method.num_parts(3)


def test_spa_labels_by_the_policys_own_word_after_a_first_round_on_data() -> None:
    method = make("spa")
    start = Stage(0, 3)
    assert method.feed(start).source == "data" and method.drawers(start) == [] and method.asks(start) == "nothing"
    given = record(2, (Judgement(1, 0, 1.0),))
    assert labelled(method, Nothing(), 2, start, given) == [given]
    assert labelled(method, Nothing(), 1, start) == []
    assert method.asks(LATER) == "implicit" and method.training(LATER).objective == [{"spa": {}}]
    (found,) = labelled(method, Told([0.2, -0.1]), 2)
    assert sides(found) == [(0, 1)] and found.judgements[0].annotator == "policy"
    rejected = {sides(labelled(make("spa", rejected="random"), Told([9.0, 1.0, 2.0]), 3)[0])[0][1] for _ in range(1)}
    assert rejected <= {1, 2}


def test_reward_augmented_data_are_twice_as_many_and_the_second_half_is_swapped() -> None:
    method = make("reward_augmented", candidates=2, template="[{goal}] ")
    first, second = labelled(method, Told([0.25, 1.0]), 2)
    assert (first.prompt, second.prompt) == ("[10] p", "[3.2] p")
    assert sides(first) == [(1, 0)] and sides(second) == [(0, 1)]
    assert first.id != second.id and first.candidates == second.candidates
    assert method.shown("p", LATER) == "[10] p" and method.shown("p", Stage(0, 2)) == "p"
    with pytest.raises(ValueError, match="goal"):
        make("reward_augmented", template="no place")


def test_goals_run_from_1_to_10_and_equal_ones_do_not_contradict_each_other() -> None:
    assert [goal_of(x, 0.0, 2.0) for x in (-1.0, 0.0, 1.0, 2.0, 5.0)] == [1.0, 1.0, 5.5, 10.0, 10.0]
    assert with_goal("p", 10.0, "{goal}: ") == "10: p" and with_goal("p", 5.5, "{goal}: ") == "5.5: p"
    given = record(2, (Judgement(1, 0, 0.2),))  # candidate 0 is the winner
    one, other = augmented(given, (8.0, 3.0))
    assert (sides(one), one.judgements[0].probability) == ([(0, 1)], 0.8) and sides(other) == [(1, 0)]
    assert len(list(augmented(given, (8.0, 8.0)))) == 1


def test_every_loop_says_where_it_comes_from_and_how_far_that_was_read() -> None:
    for name in registry:
        kind = registry.get(name)
        assert "arXiv:" in kind.source and kind.evidence in ("official", "paper", "secondary", "memory"), name
        assert kind.__doc__ and kind.__doc__.startswith("Options of the loop"), name

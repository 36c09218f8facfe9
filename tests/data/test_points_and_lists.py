"""The views of labelled points and of lists, and which view serves which groups."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import (
    BalancedSampler,
    Item,
    given_columns,
    list_view,
    load_prompts,
    open_prompts,
    pair_view,
    point_view,
    prompt_view,
    view_of,
    winner_view,
)
from diffpref.data.scores import judged_win_rates, scored_win_rates


def record(identity: str, *candidates: dict[str, Any], judgements: tuple[Judgement, ...] = ()) -> Record:
    made = tuple(
        Candidate(
            text=f"{identity} {number}",
            label=one.get("label"),
            scores=(Score("good", "1", one["score"]),) if "score" in one else (),
        )
        for number, one in enumerate(candidates)
    )
    return Record(identity, f"prompt {identity}", made, judgements)


def test_the_view_follows_the_groups() -> None:
    assert view_of({"chosen", "rejected", "mismatched"}) == "pairs" and view_of({"rejected"}) == "pairs"
    assert view_of({""}) == "points" and view_of({"list"}) == "lists"
    with pytest.raises(ConfigError, match="no data hold chosen, list samples together; there are pairs: chosen, re"):
        view_of({"list", "chosen"})
    with pytest.raises(ConfigError, match="no data hold guidance samples together"):
        view_of({"guidance"})


def test_labels_of_candidates_are_points_and_what_has_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    records = [record("a", {"label": 1.0}, {"label": 0.0}), record("b", {}, {"label": 1.0})]
    with caplog.at_level(logging.INFO, logger="diffpref"):
        points = point_view(records)
    assert [(p.key, p.groups, p.columns) for p in points] == [
        ("a/0", {"": 0}, {"label": 1.0, "weight": 1.0}),
        ("a/1", {"": 1}, {"label": 0.0, "weight": 1.0}),
        ("b/1", {"": 1}, {"label": 1.0, "weight": 1.0}),
    ]
    assert "left out: 1 candidates without a label" in caplog.text and given_columns(points) == {"label"}
    with pytest.raises(DataError, match=r"record 'c': a candidate's label must be 0 or 1, got 0\.5"):
        point_view([record("c", {"label": 0.5})])


def test_without_labels_winners_are_good_and_losers_bad() -> None:
    judged = record("a", {}, {}, {}, judgements=(Judgement(0, 1, 0.0, weight=2.0), Judgement(1, 2, 1.0)))
    points = point_view([judged])
    assert [(p.candidate, p.label, p.weight) for p in points] == [(1, 1, 2), (0, 0, 2), (1, 1, 1), (2, 0, 1)]
    assert len({p.key for p in points}) == 4 and points[2].key == "a/1#1"
    scored = record("b", {"score": 1.0, "label": 1.0}, {"score": 3.0, "label": 0.0}, {"score": 2.0})
    assert [(p.candidate, p.label) for p in point_view([scored], score="good")] == [(1, 1.0), (0, 0.0)]
    with pytest.raises(DataError, match=r"1 of 1 pairs have soft labels or are ties, .* give candidates labels"):
        point_view([record("c", {}, {}, judgements=(Judgement(0, 1, 0.7),))])
    with pytest.raises(DataError, match=r"no candidate has a label \(0 or 1\), which .* name one: good \(2\)"):
        point_view([record("d", {"score": 1.0}, {"score": 2.0})])
    with pytest.raises(DataError, match=r"2 records give no pair: 2 candidates carry labels of their own, .* as kto"):
        pair_view([record("e", {"label": 1.0}), record("f", {"label": 0.0})])


def test_scores_make_lists_with_ranks_and_win_rates() -> None:
    records = [record("a", {"score": 1.0}, {}, {"score": 3.0}, {"score": 1.0}), record("b", {"score": 0.0})]
    (ranking,) = list_view(records, "good")
    assert ranking.groups == {"list": (0, 2, 3)} and ranking.key == "a/list"
    columns = ranking.columns
    assert columns["list_scores"] == (1.0, 3.0, 1.0) and columns["ranks"] == (1, 0, 1)
    apart = 1 / (1 + math.exp(-2.0))
    expected = [(1 + 1 - apart) / 3, (0.5 + 2 * apart) / 3, (1 + 1 - apart) / 3]
    assert columns["list_win_rate"] == pytest.approx(expected)
    (sharper,) = list_view(records, "good", score_scale=10.0)
    assert sharper.columns["list_win_rate"] == pytest.approx([1 / 3, 2.5 / 3, 1 / 3], abs=1e-6)


def test_judgements_make_lists_too() -> None:
    wins = (Judgement(0, 1, 1.0), Judgement(1, 2, 0.8, weight=3.0), Judgement(0, 1, 1.0, aspect="style"))
    (ranking,) = list_view([record("a", {}, {}, {}, {}, judgements=wins)])
    assert ranking.groups == {"list": (0, 1, 2)} and ranking.columns["ranks"] == (0, 1, 2)
    # one judgement of weight 1 and the draw against oneself; four of weight and a draw of their mean weight
    assert ranking.scores == pytest.approx([0.75, (0 + 3 * 0.8 + 2 * 0.5) / 6, (3 * 0.2 + 3 * 0.5) / 6])
    assert ranking.win_rates == ranking.scores


@pytest.mark.parametrize(
    ("records", "score", "message"),
    [
        ([record("a", {"score": 1.0}), record("b", {})], "good", r"none has more than one candidate \(K = 1\), and a"),
        ([record("a", {"score": 1.0}, {"score": 2.0})], None, r"0 judgements rank no two candidates; .*: good \(2\)"),
        ([record("a", {"score": 1.0}, {"score": 2.0})], "fine", "none has two candidates with a score 'fine'; scores"),
        ([record("a", {"score": 1.0}, {"score": 1.0})], "good", "in 1 all candidates are equally good"),
        ([record("a", {"score": 1.0}, {"score": math.nan})], "good", "1 of 2 good scores are NaN or infinite"),
    ],
)
def test_data_that_give_no_list_say_why(records: list[Record], score: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_view(records, score)


def test_records_of_one_candidate_and_of_ties_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    records = [
        record("a", {"score": 1.0}, {"score": 2.0}),
        record("b", {"score": 1.0}),
        record("c", {"score": 1.0}, {"score": 1.0}),
    ]
    with caplog.at_level(logging.INFO, logger="diffpref"):
        assert [r.record_id for r in list_view(records, "good")] == ["a"]
    assert "1 records of fewer than two candidates, 1 records whose candidates are all equally good" in caplog.text
    assert [r.record_id for r in list_view(records, "good", drop_ties=False)] == ["a", "c"]


def test_pairs_tell_scores_and_win_rates_of_both_sides() -> None:
    (scored,) = pair_view([record("a", {"score": 1.0}, {"score": 3.0}, {"score": 2.0})], score="good")
    rates = scored_win_rates([1.0, 3.0, 2.0])
    assert scored.groups == {"chosen": 1, "rejected": 0}
    assert scored.columns == {
        **{"preference": 1.0, "weight": 1.0, "chosen_score": 3.0, "rejected_score": 1.0},
        **{"chosen_win_rate": rates[1], "rejected_win_rate": rates[0]},
    }
    (soft,) = pair_view([record("a", {"score": 1.0}, {"score": 3.0})], score="good", score_scale=0.5, soft=True)
    assert soft.probability == pytest.approx(1 / (1 + math.exp(-1.0))) and soft.columns["preference"] < 1
    good, bad = point_view([record("a", {"score": 1.0}, {"score": 3.0})], score="good")
    assert (good.columns["score"], bad.columns["score"]) == (3.0, 1.0)
    assert good.columns["win_rate"] == pytest.approx(1 - bad.columns["win_rate"]) and good.label == 1.0
    (judged,) = pair_view([record("b", {}, {}, judgements=(Judgement(0, 1, 0.2),))])
    assert judged.columns["chosen_win_rate"] == pytest.approx(0.65) and "chosen_score" not in judged.columns
    items: list[Item] = [scored, judged]
    assert given_columns(items) == {"preference", "chosen_win_rate", "rejected_win_rate"}


def test_win_rates() -> None:
    rates = scored_win_rates([0.0, math.nan, 800.0, -800.0])
    assert rates[0] == pytest.approx(0.5) and math.isnan(rates[1]) and rates[2:] == pytest.approx([2.5 / 3, 0.5 / 3])
    known = judged_win_rates(3, [Judgement(0, 1, 1.0, weight=0.0), Judgement(0, 1, 0.0, weight=0.0)])
    assert known[:2] == [0.5, 0.5] and math.isnan(known[2])


def test_a_pair_brings_further_answers_of_its_record_that_its_meta_names():
    candidates = tuple(Candidate(text=text) for text in "abc")
    record = Record("r", "p", candidates, (Judgement(0, 1, 1.0),), meta={"gold": "2", "calibration": "0"})
    (pair,) = pair_view([record])
    assert pair.groups == {"chosen": 0, "rejected": 1, "gold": 2, "calibration": 0}
    assert view_of({"chosen", "rejected", "gold"}) == "pairs"
    assert pair_view([replace(record, meta={})])[0].groups == {"chosen": 0, "rejected": 1}
    for wrong in ("3", "-1", "two", ""):
        with pytest.raises(DataError, match=r"meta\.gold must be the number of one of its 3 candidates"):
            pair_view([replace(record, meta={"gold": wrong})])


def test_win_rates_that_were_counted_elsewhere_are_taken_as_they_stand():
    candidates = tuple(Candidate(text=t, scores=(Score("win_rate", "1", v),)) for t, v in (("a", 0.9), ("b", 0.2)))
    (pair,) = pair_view([Record("r", "p", candidates, (Judgement(0, 1, 1.0),))])
    assert (pair.columns["chosen_win_rate"], pair.columns["rejected_win_rate"]) == (0.9, 0.2)
    (half,) = pair_view([Record("r", "p", (candidates[0], Candidate(text="b")), (Judgement(0, 1, 1.0),))])
    assert half.columns["chosen_win_rate"] == 0.75  # one of them has none: counted from the judgement


def test_no_groups_are_the_view_of_prompts(tmp_path: Path) -> None:
    assert view_of(()) == "prompts"
    (tmp_path / "asked.jsonl").write_text('{"prompt": "two dogs", "include": [{"class": "dog", "count": 2}]}\n')
    (asked,) = prompt_view(open_prompts(str(tmp_path / "asked.jsonl")))
    assert (asked.prompt, asked.groups, asked.columns) == ("two dogs", {}, {})
    assert asked.meta == {"include": [{"class": "dog", "count": 2}]}
    assert [item.prompt for item in prompt_view(open_prompts("shapes:seen:3"))] == load_prompts("shapes:seen:3")
    with pytest.raises(DataError, match="no such file"):
        open_prompts(str(tmp_path / "nothing.txt"))


@pytest.mark.parametrize(
    ("mixed", "labels"), [("each", [1.0, 0.0, 0.0, 1.0]), ("good", [1, 0, 1]), ("bad", [1, 0, 0]), ("drop", [1, 0])]
)
def test_a_sample_that_won_and_lost_counts_as_told(mixed: Any, labels: list[float]) -> None:
    """The third candidate loses to the first and beats the second."""
    judged = (Judgement(0, 2, 1.0), Judgement(2, 1, 1.0))
    points = point_view([record("a", {}, {}, {}, judgements=judged)], mixed=mixed, pairing="all_pairs")
    found = {(point.candidate, point.label) for point in points}
    assert sorted(label for _, label in found) == sorted(labels)
    third = {label for candidate, label in found if candidate == 2}
    assert third == {"each": {0.0, 1.0}, "good": {1.0}, "bad": {0.0}, "drop": set()}[mixed]
    assert len({point.key for point in points}) == len(points)


def test_good_samples_are_drawn_at_their_rate_with_replacement() -> None:
    labels = [True] * 3 + [False] * 27
    sampler = BalancedSampler(labels, 0.8, seed=0)
    drawn = [item for step in range(40) for item in sampler.batch(step, 25)]
    share = sum(labels[index] for index, _ in drawn) / len(drawn)
    assert share == pytest.approx(0.8, abs=0.03) and len(set(drawn)) == len(drawn) == 1000
    assert {index for index, _ in drawn} == set(range(30))
    halves = [sampler.batch(3, 10, rank=rank, num_ranks=2) for rank in (0, 1)]
    assert [*halves[0], *halves[1]] == sampler.batch(3, 10) == BalancedSampler(labels, 0.8, 0).batch(3, 10)
    with pytest.raises(DataError, match=r"data.positive_share: 0.8 draws from 0 good and 2 bad samples"):
        BalancedSampler([False, False], 0.8, seed=0)


def test_good_samples_alone_are_winners_and_candidates_without_a_rival() -> None:
    single, pair = record("a", {}), record("b", {}, {}, judgements=(Judgement(0, 1, 0.0),))
    found = winner_view([single, pair, record("c", {})])
    assert [(one.record_id, one.chosen) for one in found] == [("a", 0), ("b", 1), ("c", 0)]
    assert [one.chosen for one in winner_view([single])] == [0] and len({one.key for one in found}) == 3
    with pytest.raises(DataError):
        winner_view([record("d", {}, {})])

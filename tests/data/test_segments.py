"""Judgements of parts of clips: one label a moment, and which of two is chosen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import DataError
from diffpref.data import pair_view
from diffpref.data.segments import Segment, judged_parts, latent_labels

SIDES = tuple(Candidate(bytes=bytes([number])) for number in range(3))


def record(*judgements: Judgement) -> Record:
    return Record("r", "p", SIDES, judgements)


def part(
    first: int, second: int, probability: float, start: float | None, end: float | None, **more: float
) -> Judgement:
    return Judgement(first, second, probability, start=start, end=end, **more)  # type: ignore[arg-type]


def test_judgements_of_a_part_are_one_label_by_the_mean_of_their_weights() -> None:
    told = record(
        part(0, 1, 1.0, 1.0, 2.0),
        part(0, 1, 0.9, 0.0, 1.0),
        part(1, 0, 0.8, 0.0, 1.0, weight=3.0),
        part(1, 0, 0.5, 2.0, None),
        Judgement(0, 1, 1.0),
        Judgement(0, 1, 1.0, aspect="motion", start=0.5, end=0.7),
    )
    expected = (Segment(0.0, 1.0, -1), Segment(1.0, 2.0, 1), Segment(2.0, math.inf, 0))
    assert judged_parts(told) == {(0, 1): expected}
    assert judged_parts(told, "motion") == {(0, 1): (Segment(0.5, 0.7, 1),)}


def test_the_one_that_is_better_in_more_parts_is_chosen_and_labels_are_seen_from_it() -> None:
    told = record(
        part(0, 1, 0.0, 0.0, 1.0), part(0, 1, 0.0, 1.0, 2.0), part(0, 1, 1.0, 2.0, 3.0), part(2, 0, 0.5, 0, 1)
    )
    (pair,) = pairs = pair_view([told], parts=True)
    assert (pair.chosen, pair.rejected) == (1, 0) and pairs.left_out == {"judgements that are ties": 1}
    assert [one.label for one in pair.segments] == [1, 1, -1]
    assert pair.columns["segment_label"] == (0.0, 1.0, 1, 1.0, 2.0, 1, 2.0, 3.0, -1)
    assert pair.columns["preference"] == 1.0
    kept = pair_view([told], parts=True, drop_ties=False)
    assert [(one.chosen, one.rejected) for one in kept] == [(1, 0), (2, 0)]


def test_clips_judged_by_parts_alone_have_the_label_of_most_of_them() -> None:
    parts = (part(0, 1, 0.0, 0.0, 1.0), part(0, 1, 0.0, 1.0, 2.0), part(0, 1, 1.0, 2.0, 3.0), part(2, 0, 0.5, 0, 1))
    (pair,) = pairs = pair_view([record(*parts)])
    assert (pair.chosen, pair.rejected, pair.probability, pair.segments) == (1, 0, 1.0, ())
    assert pairs.left_out == {"judgements that are ties": 1}
    (whole,) = pair_view([record(*parts, Judgement(1, 0, 0.2))])
    assert (whole.chosen, whole.probability) == (0, 0.8)  # who judged the whole has said more than its parts


@pytest.mark.parametrize(
    ("decided", "share", "kept"), [(1, 0.2, False), (2, 0.2, True), (2, 0.4, False), (0, 0.0, False)]
)
def test_pairs_with_too_many_ties_among_their_parts_are_left_out(decided: int, share: float, kept: bool) -> None:
    parts = [part(0, 1, 1.0 if number < decided else 0.5, number, number + 1) for number in range(5)]
    other = record(part(1, 2, 0.0, 0.0, 1.0))
    pairs = pair_view([record(*parts), other], parts=True, min_non_tie=share)
    assert [one.record_index for one in pairs] == ([0, 1] if kept else [1])
    reason = "judgements that are ties" if not decided else "pairs with too few judged parts that are no ties"
    assert pairs.left_out == ({} if kept else {reason: 1})
    if decided and not kept:
        with pytest.raises(DataError, match=rf"in 1 pairs at most {share:.0%} of the judged parts are no ties.*--tie"):
            pair_view([record(*parts)], parts=True, min_non_tie=share)


def test_where_no_part_is_judged_the_error_says_how_to_judge_them() -> None:
    with pytest.raises(DataError, match=r"none of aspect 'overall' is of a part.*--segments 1 --output"):
        pair_view([record(Judgement(0, 1, 1.0))], parts=True)


def test_pairs_by_a_score_weigh_more_the_rarer_their_gap_is() -> None:
    def scored(gap: float) -> Record:
        sides = tuple(
            replace(one, scores=(Score("r", "1", value),)) for one, value in zip(SIDES, (gap, 0.0), strict=False)
        )
        return Record("r", "p", sides, ())

    pairs = pair_view([scored(gap) for gap in (0.1, 0.2, 0.1, 1.0)], score="r", rarity_bins=2)
    assert [pair.weight for pair in pairs] == pytest.approx([0.72 / 0.75] * 3 + [0.72 / 0.25])
    assert {pair.weight for pair in pair_view([scored(0.1)], score="r")} == {1.0}


def test_labels_follow_the_frames_that_are_shown() -> None:
    parts = [Segment(0.0, 1.0, 1), Segment(1.0, 2.0, -1)]
    assert latent_labels([0, 3, 4, 7, 8], 4.0, parts) == [1, 1, -1, -1, 0]
    assert latent_labels(range(9), 4.0, parts, temporal_factor=4, causal=True) == [1, 1, -1]
    assert latent_labels(range(2, 10), 4.0, parts, temporal_factor=4) == [1, -1]


@pytest.mark.parametrize(
    ("judgements", "told"),
    [
        ([part(0, 1, 1.0, 0.0, 1.0), part(0, 1, 1.0, 0.5, 2.0)], "judged parts overlap, 0 to 1 and 0.5 to 2 seconds"),
        ([part(0, 1, 1.0, 1.0, 1.0)], "has a start and a later end in seconds, got 1.0 to 1.0"),
        ([part(0, 1, 1.0, -1.0, None)], "got -1.0 to inf"),
        ([part(0, 1, 1.0, math.nan, 1.0)], "got nan to 1.0"),
        ([part(0, 5, 1.0, 0.0, 1.0)], "not a judgement of its candidates"),
    ],
)
def test_what_is_no_judgement_of_parts_is_refused(judgements: list[Judgement], told: str) -> None:
    with pytest.raises(DataError, match=told):
        judged_parts(record(*judgements))

"""The pair view."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref import objectives
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import Pair, pair_view


def scored(identity: str, *values: float | None) -> Record:
    def scores(value: float | None) -> tuple[Score, ...]:
        return () if value is None else (Score("pickscore", "v1", value), Score("hps", "v2", -value))

    candidates = tuple(Candidate(path=str(number), scores=scores(value)) for number, value in enumerate(values))
    return Record(identity, f"prompt {identity}", candidates)


def judged(*judgements: Judgement) -> Record:
    return Record("j", "p", (Candidate(path="a"), Candidate(path="b")), judgements)


def test_scores_decide_the_winner():
    records = [scored("a", 1.0, 3.0, 2.0), scored("b", 5.0, 4.0)]
    assert pair_view(records, score="pickscore") == [
        Pair(0, "a", "prompt a", chosen=1, rejected=0),
        Pair(1, "b", "prompt b", chosen=0, rejected=1),
    ]
    assert [(p.chosen, p.rejected) for p in pair_view(records, score="hps")] == [(0, 1), (1, 0)]


def test_every_pairing_of_the_registry_can_be_named():
    pairs = pair_view([scored("a", 1.0, 3.0, 2.0)], "all_pairs", "pickscore", min_gap=1.5)
    assert [(p.chosen, p.rejected) for p in pairs] == [(1, 0)]
    with pytest.raises(ConfigError, match="did you mean 'all_pairs'"):
        pair_view([scored("a", 1.0, 2.0)], "all_pair", "pickscore")


def test_candidates_without_a_score_take_part_in_no_pair():
    assert [(p.chosen, p.rejected) for p in pair_view([scored("a", None, 3.0, 2.0)], score="pickscore")] == [(1, 2)]


def test_judgements_decide_and_a_low_probability_swaps():
    records = [judged(Judgement(0, 1, 0.8, weight=2.0), Judgement(0, 1, 0.25), Judgement(0, 1, 0.5))]
    assert pair_view(records) == [
        Pair(0, "j", "p", chosen=0, rejected=1, probability=0.8, weight=2.0),
        Pair(0, "j", "p", chosen=1, rejected=0, probability=0.75, occurrence=1),
    ]


def test_ties_stay_when_asked():
    (pair,) = pair_view([judged(Judgement(1, 0, 0.5))], drop_ties=False)
    assert (pair.chosen, pair.rejected, pair.probability) == (1, 0, 0.5)


def test_judgements_of_other_aspects_are_left_out_and_parts_count_only_where_nobody_judged_the_whole():
    part = Judgement(0, 1, 1.0, start=0.0, end=1.0)
    records = [judged(part, Judgement(0, 1, 0.0, aspect="style"))]
    assert [(p.chosen, p.rejected) for p in pair_view(records, aspect="style")] == [(1, 0)]
    assert [(p.chosen, p.rejected) for p in pair_view(records)] == [(0, 1)]
    assert [(p.chosen, p.rejected) for p in pair_view([judged(part, Judgement(0, 1, 0.0))])] == [(1, 0)]
    with pytest.raises(DataError):
        pair_view([judged(Judgement(0, 1, 0.0, aspect="style"))])


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([scored("a", 1.0, 2.0)], {}, r"of 0 judgements .* name one: hps \(2\), pickscore \(2\)"),
        ([scored("a", 1.0, 2.0)], {"score": "clip"}, r"no candidate has a score 'clip'; scores there are: hps"),
        ([scored("a", 1.0, 1.0)], {"score": "pickscore"}, r"all differences of 'pickscore' are 0"),
        ([scored("a", 1.0, 1.1)], {"score": "pickscore", "min_gap": 1.0}, r"min_gap=1\.0"),
        ([judged(Judgement(0, 1, 0.5))], {}, r"of 1 judgements none of aspect 'overall' is decided"),
        ([], {}, r"0 records give no pair"),
        ([judged(Judgement(0, 2, 1.0))], {}, r"record 'j': not a judgement of its candidates"),
        ([judged(Judgement(0, 1, 1.5))], {}, r"record 'j': not a judgement of its candidates"),
    ],
)
def test_no_pair_is_an_error_with_the_reason(records, options, message):
    with pytest.raises(DataError, match=message):
        pair_view(records, **options)


def test_two_versions_of_a_score_must_be_told_apart():
    scores = (Score("hps", "v2", 1.0), Score("hps", "v2.1", 0.0))
    other = (Score("hps", "v2", 0.0), Score("hps", "v2.1", 1.0))
    record = Record("a", "p", (Candidate(path="a", scores=scores), Candidate(path="b", scores=other)))
    with pytest.raises(DataError, match=r"several versions of hps; say which: hps@v2, hps@v2\.1"):
        pair_view([record], score="hps")
    assert pair_view([record], score="hps@v2.1")[0].chosen == 1


def test_judgements_of_one_pair_draw_apart_and_turning_a_pair_draws_the_same():
    many = (Judgement(0, 1, 1.0), Judgement(0, 1, 0.5), Judgement(1, 0, 1.0), Judgement(0, 1, 0.0, aspect="style"))
    assert [pair.key for pair in pair_view([judged(*many)])] == ["j/0-1", "j/0-1#2"]
    assert [pair.key for pair in pair_view([judged(*many)], drop_ties=False)] == ["j/0-1", "j/0-1#1", "j/0-1#2"]
    (style,) = pair_view([judged(*many)], aspect="style")
    assert style.key == "j/0-1" and style.chosen == 1


def test_judgements_can_be_merged_by_weight():
    many = (Judgement(0, 1, 1.0, weight=3.0), Judgement(1, 0, 1.0, weight=1.0), Judgement(0, 1, 0.5, weight=0.0))
    (pair,) = pair_view([judged(*many)], judgements="merged")
    assert (pair.chosen, pair.probability, pair.weight, pair.key) == (0, 0.75, 4.0, "j/0-1")
    undecided = (Judgement(0, 1, 1.0), Judgement(1, 0, 1.0))
    with pytest.raises(DataError, match="none of aspect 'overall' is decided"):
        pair_view([judged(*undecided)], judgements="merged")


def test_row_13_scores_that_are_not_finite_make_no_pair_and_too_many_stop():
    values = [float(number) for number in range(97)]
    records = [scored("good", *values), scored("bad", math.nan, math.inf, -math.inf, None, 1.0, 2.0)]
    pairs = pair_view(records, score="pickscore", max_unusable=0.05)
    assert [(p.record_id, p.chosen, p.rejected) for p in pairs] == [("good", 96, 0), ("bad", 5, 4)]
    assert pairs.left_out == {"candidates without a finite score": 4}
    with pytest.raises(DataError, match=r"3 of 102 pickscore scores are NaN or infinite, more than 1\.0%"):
        pair_view(records, score="pickscore")


PROBABILITIES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
VALUES = st.none() | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf])


@st.composite
def odd_records(draw: st.DrawFn) -> list[Record]:
    """Records of none to four candidates, some the same picture, some tied, some unscored, judged at random."""
    records = []
    for number in range(draw(st.integers(0, 4))):
        shown = draw(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=4))
        candidates = tuple(
            Candidate(path=path, scores=() if value is None else (Score("s", "1", value),)) for path, value in shown
        )
        places = st.integers(0, max(0, len(shown) - 1))
        one = st.builds(Judgement, places, places, PROBABILITIES, st.sampled_from([0.0, 0.5, 2.0]))
        records.append(Record(str(number), "p", candidates, tuple(draw(st.lists(one, max_size=4))) if shown else ()))
    return records


@settings(max_examples=300)
@given(odd_records(), st.sampled_from([None, "s"]), st.booleans(), st.booleans(), st.sampled_from(["each", "merged"]))
def test_row_14_ties_equal_pictures_and_short_lists_are_dropped_or_teach_nothing(records, score, ties, same, how):
    try:
        pairs = pair_view(
            records,
            "all_pairs",
            score,
            drop_ties=ties,
            drop_identical=same,
            judgements=how,
            max_unusable=1.0,
        )
    except DataError as error:
        assert "give no pair" in str(error)
        return
    for pair in pairs:
        one, other = (records[pair.record_index].candidates[side] for side in (pair.chosen, pair.rejected))
        assert 0.5 <= pair.probability <= 1.0 and not (ties and pair.probability == 0.5)
        assert not (same and one.path == other.path)
    # a model that judges by the place alone; one candidate against itself has margin 0
    chosen, rejected, preference = (
        torch.tensor([float(getattr(pair, name)) for pair in pairs], dtype=torch.float64)
        for name in ("chosen", "rejected", "probability")
    )
    losses = objectives.dpo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, preference=preference, beta=5000.0)
    assert torch.isfinite(losses * torch.tensor([pair.weight for pair in pairs])).all()
    assert torch.allclose(losses[chosen == rejected], torch.tensor(math.log(2), dtype=torch.float64))
    assert max(Counter(pair.key for pair in pairs).values()) == 1
    if score is None and how == "each":
        left = sum(count for reason, count in pairs.left_out.items())
        assert len(pairs) + left == sum(len(record.judgements) for record in records)

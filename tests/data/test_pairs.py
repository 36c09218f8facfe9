"""The pair view."""

from __future__ import annotations

import pytest

from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import Pair, pair_view


def scored(identity: str, *values: float | None) -> Record:
    candidates = tuple(
        Candidate(
            path="x", scores=() if value is None else (Score("pickscore", "v1", value), Score("hps", "v2", -value))
        )
        for value in values
    )
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
        Pair(0, "j", "p", chosen=1, rejected=0, probability=0.75),
    ]


def test_ties_stay_when_asked():
    (pair,) = pair_view([judged(Judgement(1, 0, 0.5))], drop_ties=False)
    assert (pair.chosen, pair.rejected, pair.probability) == (1, 0, 0.5)


def test_judgements_of_parts_and_of_other_aspects_are_left_out():
    records = [judged(Judgement(0, 1, 1.0, start=0.0, end=1.0), Judgement(0, 1, 0.0, aspect="style"))]
    assert [(p.chosen, p.rejected) for p in pair_view(records, aspect="style")] == [(1, 0)]
    with pytest.raises(DataError):
        pair_view(records)


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

"""Several stored scores as the label of pairs, lists and points; calibrations as soft labels."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from diffpref.config import Data, build_recipe
from diffpref.config.commandline import parse_recipe_cli
from diffpref.core.contracts import Candidate, Record, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import Combined, list_view, pair_view, point_view, write_store
from diffpref.ranking import Calibration, calibrate, combine, smoothed_preference
from diffpref.ranking.calibration import PICKSCORE_COSINES
from diffpref.training.items import load_items, score_settings

NAMES = ("pickscore", "hps", "clip")
NAN = math.nan


def record(identity: str, *rows: tuple[float | None, ...]) -> Record:
    """A row a candidate, with its scores by `NAMES`; None: not scored."""
    candidates = tuple(
        Candidate(
            text=f"{identity}{number}",
            scores=tuple(Score(n, "v1", v) for n, v in zip(NAMES, row, strict=False) if v is not None),
        )
        for number, row in enumerate(rows)
    )
    return Record(identity, f"prompt {identity}", candidates)


TWO = Combined(("pickscore", "hps"))
# by pickscore 2 > 1 > 0, by hps 1 > 2 > 0, far apart
RECORD = record("a", (1.0, 0.1), (2.0, 0.9), (2.5, 0.3))


@pytest.mark.parametrize("rule", ["weighted_sum", "zscore", "win_fraction"])
def test_pairs_lists_and_points_follow_from_the_combined_scores(rule: Any) -> None:
    label = Combined(("pickscore", "hps"), rule, (1.0, 2.0))
    rows = [[c.scores[k].value for c in RECORD.candidates] for k in range(2)]
    expected = combine(rows, rule, (1.0, 2.0))
    (ranking,) = list_view([RECORD], label)
    assert list(ranking.scores) == expected
    (pair,) = pair_view([RECORD], score=label)
    assert (pair.chosen, pair.rejected) == (1, 0) and pair.scores == (expected[1], expected[0])
    assert [(p.candidate, p.label) for p in point_view([RECORD], label)] == [(1, 1.0), (0, 0.0)]


def test_weights_decide_where_scores_disagree() -> None:
    def order(*weights: float) -> list[tuple[int, int]]:
        pairs = pair_view([RECORD], "all_pairs", Combined(("pickscore", "hps"), "zscore", weights))
        return [(pair.chosen, pair.rejected) for pair in pairs]

    assert order(1.0, 0.0) == [(p.chosen, p.rejected) for p in pair_view([RECORD], "all_pairs", "pickscore")]
    assert order(0.0, 1.0) == [(p.chosen, p.rejected) for p in pair_view([RECORD], "all_pairs", "hps")]


def test_consensus_keeps_the_pairs_on_which_all_agree_and_counts_the_others(caplog: Any) -> None:
    label = Combined(("pickscore", "hps"), "consensus")
    with caplog.at_level(logging.INFO, logger="diffpref.data"):
        pairs = pair_view([RECORD], "all_pairs", label)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {(1, 0), (2, 0)}
    assert pairs.left_out == {"pairs on which the scores disagree": 1}
    assert "consensus of pickscore, hps: all scores agree on 2 of 3 pairs (66.7 %)" in caplog.text
    tied = record("t", (1.0, 0.5), (2.0, 0.5))
    with pytest.raises(DataError, match="1 were pairs on which the scores disagree; combine otherwise"):
        pair_view([tied], score=label)
    with pytest.raises(ConfigError, match="consensus keeps or drops pairs"):
        list_view([RECORD], label)


def test_a_candidate_that_lacks_a_score_takes_part_in_nothing_and_is_counted() -> None:
    records = [record("a", (9.0, None), (2.0, 0.9), (1.0, 0.3)), record("b", (1.0, NAN), (2.0, 0.1), (3.0, 0.2))]
    pairs = pair_view(records, score=TWO, max_unusable=0.5)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(1, 2), (2, 1)]
    assert pairs.left_out == {"candidates without a finite score": 2}
    assert [ranking.candidates for ranking in list_view(records, TWO, max_unusable=0.5)] == [(1, 2), (1, 2)]
    with pytest.raises(DataError, match="1 of 5 hps scores are NaN or infinite"):
        pair_view(records, score=TWO)


def test_a_score_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no candidate has a score 'clip'; scores there are: hps \(3\), pickscore"):
        pair_view([RECORD], score=Combined(("pickscore", "clip")))
    with pytest.raises(DataError, match="'zscore of pickscore, clip'"):
        list_view([RECORD], Combined(("pickscore", "clip")))


def test_versions_are_told_apart() -> None:
    rows = [(Score("pickscore", "v1", k), Score("pickscore", "v2", -k), Score("hps", "v1", k)) for k in (0.0, 1.0)]
    other = Record("a", "p", tuple(Candidate(text=str(k), scores=row) for k, row in enumerate(rows)))
    with pytest.raises(DataError, match="several versions of pickscore; say which"):
        pair_view([other], score=TWO)
    (pair,) = pair_view([other], score=Combined(("pickscore@v1", "hps")))
    assert (pair.chosen, pair.rejected) == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ()}, "different scores are combined, got none"),
        ({"scores": ("a", "a")}, "different scores are combined, got a, a"),
        ({"scores": ("a",), "rule": "mean"}, "must be one of weighted_sum, zscore"),
        ({"scores": ("a", "b"), "weights": (1.0,)}, "2 scores need as many, got 1"),
        ({"scores": ("a", "b"), "weights": (0.0, 0.0)}, "not all 0"),
        ({"scores": ("a", "b"), "weights": (2.0, -1.0)}, "must be >= 0"),
    ],
)
def test_mistakes_of_combinations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Combined(**options)


# ---------------------------------------------------------------- recipes


def keys(**data: Any) -> dict[str, Any]:
    return {
        "output": "out",
        "method": "diffusion_dpo",
        "model": {"family": "sd", "path": "x"},
        "data": {"source": "y", **data},
    }


def test_a_recipe_names_several_scores_and_how_they_become_one() -> None:
    recipe = build_recipe(keys(score=["pickscore", "hps"], combine="win_fraction", score_weights=[2, 1]))
    assert score_settings(recipe.data)[0] == Combined(("pickscore", "hps"), "win_fraction", (2.0, 1.0))
    assert build_recipe(recipe.model_dump(mode="json")) == recipe
    one = build_recipe(keys(score="pickscore"))
    assert score_settings(one.data)[0] == "pickscore" and build_recipe(one.model_dump(mode="json")) == one


def test_a_command_line_does_too(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(keys()))

    def score(*words: str) -> Any:
        return parse_recipe_cli([str(tmp_path / "r.yaml"), *words]).data.score

    assert score("--data.score", "pickscore") == score("--data.score=pickscore") == "pickscore"
    several = ["pickscore", "hps@v1"]
    assert score("--data.score", *several, "--data.combine", "consensus") == several
    assert score("--data.score", "[pickscore, 'hps@v1']") == several and score("--data.score", "null") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"score": "a", "combine": "consensus"}, "combine: is for several scores"),
        ({"combine": "win_fraction"}, "combine: is for several scores"),
        ({"score": "a", "score_weights": [1]}, "score_weights: is for several scores"),
        ({"score": ["a", "b"], "score_weights": [1]}, "score_weights: one a score, 2; got 1"),
        ({"score": ["a", "b"], "score_weights": [0, 0]}, "must not all be 0"),
        ({"score": ["a", "b"], "score_weights": [-1, 2]}, "score_weights"),
        ({"score": ["a", "a"]}, "different ones"),
        ({"score": []}, "different ones"),
        ({"score": ["a", "b"], "combine": "mean"}, "combine"),
        ({"score": ["a", "b"], "calibration": "c.json"}, "calibration: is of one score"),
        ({"calibration": "c.json"}, "calibration: is of one score"),
        ({"score": "a", "calibration": "c.json", "score_scale": 2.0}, "gives score_scale"),
    ],
)
def test_mistakes_of_recipes(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_recipe(keys(**data))


# ---------------------------------------------------------------- calibration


def measured(version: str = "v1", **options: Any) -> Calibration:
    draw = [(0.0, 1.0), (2.0, 0.0), (1.0, 0.5), (0.0, 3.0), (2.0, 1.0), (1.0, 3.0), (1.0, 1.5)]
    return calibrate("pickscore", version, draw, [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.5], list("abcdefg"), **options)


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_a_calibration_is_the_soft_label_and_chooses_the_version(tmp_path: Path, ties: str) -> None:
    found = measured(ties=ties)
    assert (found.tie_weight > 0) == (ties == "davidson")
    found.save(tmp_path / "c.json")
    write_store(tmp_path / "store", [RECORD, record("b", (5.0,), (4.0,))])
    options = {"source": str(tmp_path / "store"), "score": "pickscore", "calibration": str(tmp_path / "c.json")}
    data = Data(**options, score_labels="soft")
    _, pairs = load_items(data, "pairs")
    assert [pair.probability for pair in pairs] == [  # type: ignore[union-attr]
        pytest.approx(found.probability(2.5, 1.0)),
        pytest.approx(found.probability(5.0, 4.0)),
    ]
    measured("v2").save(tmp_path / "c.json")
    with pytest.raises(DataError, match=r"no record has two scores|no candidate has a score"):
        load_items(data, "pairs")
    with pytest.raises(ConfigError, match=r"is of pickscore@v2, and data\.score is hps"):
        load_items(Data(**{**options, "score": "hps"}), "pairs")
    (tmp_path / "c.json").unlink()
    with pytest.raises(DataError, match="no such calibration"):
        load_items(data, "pairs")


def test_golden_smpo_pickscore_probability_is_a_soft_label_of_the_pair_view() -> None:
    pick = record("a", (0.2213,), (0.2035,))
    scale = 1 / (PICKSCORE_COSINES[1] - PICKSCORE_COSINES[0])
    (pair,) = pair_view([pick], score="pickscore", score_scale=scale, soft=True)
    assert pair.chosen == 0 and pair.probability == pytest.approx(0.5266884304, abs=1e-10)
    assert pair.probability == pytest.approx(smoothed_preference(0.2213, 0.2035), abs=1e-12)

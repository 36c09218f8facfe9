"""``diffpref reward calibrate`` and ``agreement``, as a user types them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpref.cli import main
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.data import labelled_pairs, score_rows, write_store
from diffpref.ranking import Calibration, agreement, fitted_scale


def records(count: int = 60) -> list[Record]:
    """Three candidates a prompt; 'judge' sees the truth, 'pick' 3 times as far apart as it means, with an error."""
    draw = np.random.default_rng(3)
    made = []
    for number in range(count):
        truth = draw.normal(size=3)
        seen = truth + 0.7 * draw.normal(size=3)
        candidates = tuple(
            Candidate(
                text=f"{number} {k}",
                scores=(
                    Score("judge", "1", float(round(truth[k] * 2))),
                    Score("pick", "v1", float(3 * seen[k])),
                    Score("nan", "1", math.nan if k == 0 else float(seen[k])),
                ),
            )
            for k in range(3)
        )
        wins = Judgement(0, 1, float(truth[0] > truth[1])), Judgement(2, 1, 0.5, weight=2.0)
        made.append(Record(f"r{number}", f"prompt {number}", candidates, wins))
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    write_store(folder, records())
    return folder


def test_calibrate_writes_what_it_says(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "pick.json"
    words = ["reward", "calibrate", str(store), "--reward", "pick", "--labels", "judge", "--output", str(file)]
    assert main([*words, "--json"]) == 0
    told, found = json.loads(capsys.readouterr().out), Calibration.load(file)
    pairs = labelled_pairs(records(), "pick", "judge")
    gaps = [a - b for a, b in pairs.scores]
    assert found.scale == told["scale"] == pytest.approx(fitted_scale(gaps, pairs.labels)[0]) and found.version == "v1"
    assert found.pairs == 180 and found.ties == pairs.labels.count(0.5) > 0 and found.error_after < found.error_before
    assert main([*words, "--ties", "davidson", "--pair_scale", "2"]) == 0
    out = capsys.readouterr().out
    assert "pick@v1: 180 labelled pairs" in out and "2 -> " in out and "weight of ties" in out
    assert "on pairs that the fit had not seen" in out and Calibration.load(file).scale > found.scale
    assert main([*words, "--rule", "range"]) == 0
    ranged = Calibration.load(file)
    assert ranged.scale == pytest.approx(1 / (ranged.largest - ranged.smallest))
    assert "had not seen" not in capsys.readouterr().out


def test_judgements_label_by_default_with_their_weights(store: Path, tmp_path: Path) -> None:
    assert main(["reward", "calibrate", str(store), "--reward", "pick", "--output", str(tmp_path / "c.json")]) == 0
    found = Calibration.load(tmp_path / "c.json")
    pairs = labelled_pairs(records(), "pick")
    assert (found.pairs, found.ties) == (120, 60) and pairs.weights[:2] == [1.0, 2.0]
    gaps = [a - b for a, b in pairs.scores]
    assert found.scale == pytest.approx(fitted_scale(gaps, pairs.labels, pairs.weights)[0])


def test_pairs_without_a_score_are_counted(store: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--reward", "nan", "--labels", "judge", "--output", str(tmp_path / "c.json")]
    assert main(["reward", "calibrate", str(store), *words]) == 0
    assert "60 labelled pairs" in (out := capsys.readouterr().out)
    assert "left out: 120 pairs of candidates without a finite score" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reward", "pik", "--output", "c"], "no candidate has a score 'pik'; scores there are: judge, nan, pick"),
        (["--reward", "pick@v2", "--output", "c"], "no score 'pick@v2'; versions there are: v1"),
        (["--reward", "pick", "--labels", "x", "--output", "c"], "no candidate has a score 'x'"),
        (["--reward", "pick", "--aspect", "style", "--output", "c"], "none has judgements of aspect 'style'"),
        (["--reward", "pick", "--labels", "pick", "--output", "c"], "all of 180 labels agree"),
        (["--reward", "pick", "--pair_scale", "0", "--output", "c"], "--pair_scale: must be > 0"),
        (["--reward", "pick"], "--output"),
    ],
)
def test_mistakes_of_calibrate_are_lines(store: Path, capsys: Any, words: list[str], said: str) -> None:
    assert main(["reward", "calibrate", str(store), *words]) == 2
    assert said in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_agreement_of_all_scores_of_a_store(store: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["reward", "agreement", str(store)]
    assert main([*words, "--json", "--plot", str(tmp_path / "a.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = agreement(score_rows(records()))
    assert told == json.loads(json.dumps(expected.to_json())) and told["names"] == ["judge", "pick", "nan"]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert main([*words, "--scores", "pick", "judge"]) == 0
    out = capsys.readouterr().out
    share = expected.between("pick", "judge").share
    assert f"{100 * share:.1f} %" in out and "pick, judge" in out and 0.7 < share < 0.95
    assert main([*words, "--scores", "pick"]) == 2
    assert "agreement needs two scorers" in capsys.readouterr().err
    assert main([*words, "--scores", "pick", "clip"]) == 2
    assert "no candidate has a score 'clip'" in capsys.readouterr().err


def test_scores_of_several_versions_are_rows_of_their_own() -> None:
    two = Record(
        "r", "p", tuple(Candidate(text=str(k), scores=(Score("a", "1", k), Score("a", "2", -k))) for k in (0, 1))
    )
    assert score_rows([two]) == {"a@1": [[0, 1]], "a@2": [[0, -1]]}

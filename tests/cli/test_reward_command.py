"""``diffpref reward``: train and evaluate from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_encoders import save_clip

from diffpref.cli import main
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.data import encode_png, write_store


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Pairs of a light and a dark picture, light ones better, and one that is a tie."""
    import numpy as np

    def shade(value: int) -> Candidate:
        return Candidate(bytes=encode_png(np.full((64, 64, 3), value, dtype=np.uint8)))

    records = [
        Record(
            f"r{number}",
            "a light picture",
            (shade(200 + number), shade(20 + number)),
            (Judgement(number % 2, 1 - number % 2, float(1 - number % 2) if number < 7 else 0.5),),
            meta={"half": str(number % 2)},
        )
        for number in range(8)
    ]
    write_store(tmp_path / "judged", records)
    return tmp_path / "judged"


def test_a_head_is_trained_and_evaluated(judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, run = save_clip(tmp_path / "clip"), tmp_path / "run"
    given = ["--model.family", "head_scorer", "--model.path", str(base), "--adapter.kind", "full"]
    given += ["--method", "reward_model", "--data.source", str(judged), "--training.batch_size", "4"]
    given += ["--optim.learning_rate", "1e-2", "--output", str(run), "--training.steps", "60"]
    assert main(["reward", "train", *given]) == 0
    assert f"trained={run}" in capsys.readouterr().out
    asked = ["reward", "evaluate", "--source", str(judged), "--rewards", f"trained={run}"]
    assert main([*asked, "--group", "half", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["trained"]
    assert (found["pairs"], found["ties"], found["decided"]) == (8, 1, 1.0)
    assert found["accuracy"] == pytest.approx(7.5 / 8)  # half a credit where the labels alone say tie
    assert set(found["by_group"]) == {"0", "1"} and found["by_group"]["1"]["ties"] == 1
    assert 0 <= found["calibration_error"] < 0.3
    assert main([*asked, "--ties_from", str(judged)]) == 0
    assert "decided, 95 %" in capsys.readouterr().out


def test_mistakes_are_one_line(judged: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reward", "trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert main(["reward", "evaluate", "--source", str(judged), "--rewards", f"trained={tmp_path}"]) == 2
    assert "holds no reward.json" in capsys.readouterr().err
    asked = ["reward", "evaluate", "--source", str(judged), "--rewards", "clip=bundled:shapes-clip"]
    assert main([*asked, "--group", "colour"]) == 2
    assert "no 'colour' to group by; its meta holds half" in capsys.readouterr().err
    assert main([*asked, "--tie", "2"]) == 2
    assert "between 0 and 1" in capsys.readouterr().err
    words = ["--model.family", "sdxl", "--model.path", "bundled:shapes-sdxl", "--method", "diffusion_dpo"]
    assert main(["reward", "train", *words, "--data.source", str(judged), "--output", str(tmp_path / "no")]) == 2
    assert "asks for no score" in capsys.readouterr().err


def test_the_group_says_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "--help"]) == 0
    told = capsys.readouterr().out
    assert "train" in told and "evaluate" in told

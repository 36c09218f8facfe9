"""What cannot be scored is one clear line, or counted and left out; never a silent zero."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref import rewards
from diffpref.cli import main
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.data import Combined, encode_png, list_view, pair_view, read_store, write_store
from diffpref.data.clips import read_media
from diffpref.data.scores import score_of
from diffpref.rewards.oracle import Oracle
from diffpref.shapes.grammar import captions
from diffpref.shapes.render import render

CAPTIONS = captions("seen")


def drawn(number: int, shown: int) -> Candidate:
    return Candidate(bytes=encode_png(render(CAPTIONS[shown], np.random.default_rng(number))))


def store(folder: Path, *odd: Candidate, count: int = 4) -> Path:
    """Records of a right and a wrong picture; ``odd`` takes the place of the last record's second."""
    records = [
        Record(f"r{n}", str(CAPTIONS[n]), (drawn(n, n), odd[0] if odd and n == count - 1 else drawn(n, n + 7)))
        for n in range(count)
    ]
    write_store(folder, records)
    return folder


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (Candidate(bytes=b"no picture"), "record 'r3', candidate 1"),
        (Candidate(bytes=encode_png(np.zeros((64, 64, 3), np.uint8))[:60]), "record 'r3', candidate 1"),
        (Candidate(path="nowhere.png"), "nowhere.png"),
        (Candidate(text="a red circle"), "reward 'oracle' scores images, item 7 is a text"),
        (Candidate(bytes=encode_png(np.zeros((8, 8, 3), np.uint8))), "reads pictures of 64 x 64 pixels, got (8, 8)"),
        (Candidate(), "holds no picture and no text"),
    ],
)
def test_a_candidate_that_cannot_be_scored_is_one_line(tmp_path: Path, capsys: Any, odd: Candidate, said: str) -> None:
    folder = store(tmp_path / "store", odd)
    assert main(["score", str(folder), "--rewards", "oracle", "--output", str(tmp_path / "scored")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("diffpref: ") and err.count("\n") == 1
    assert not (tmp_path / "scored" / "manifest.json").exists()  # nothing that looks finished


def clip(number: int) -> Candidate:
    """Four frames at ten a second."""
    frames = [render(CAPTIONS[number], np.random.default_rng(k)) for k in range(4)]
    file, (first, *rest) = io.BytesIO(), map(Image.fromarray, frames)
    first.save(file, format="WEBP", save_all=True, append_images=rest, lossless=True, duration=100)
    return Candidate(bytes=file.getvalue())


def test_a_clip_is_scored_as_a_whole_or_refused(tmp_path: Path, capsys: Any) -> None:
    records = [Record(f"r{n}", "a shape", (clip(n), clip(n + 7)), (Judgement(0, 1, 1.0),)) for n in range(3)]
    write_store(tmp_path / "clips", records)
    words = ["score", str(tmp_path / "clips"), "--output", str(tmp_path / "scored"), "--rewards"]
    assert main([*words, "motion", "flicker"]) == 0
    read = [read_media(candidate, name="c") for record in records for candidate in record.candidates]
    assert {(one.fps, one.frames.shape) for one in read} == {(10.0, (4, 64, 64, 3))}
    expected = rewards.load("motion").score(read, ["a shape"] * 6).tolist()
    found = [score_of(c, "motion") for record in read_store(tmp_path / "scored") for c in record.candidates]
    assert found == expected and len(set(found)) > 1
    capsys.readouterr()
    measured = ["reward", "evaluate", "--source", str(tmp_path / "clips"), "--rewards"]
    for asked in ([*words[:2], "--output", str(tmp_path / "no"), "--rewards"], measured):
        assert main([*asked, "jpeg"]) == 2  # the first frame is not the video
        assert "scores images, item 0 is a video; score its frames with" in capsys.readouterr().err
    assert main([*measured, "motion"]) == 0
    still = store(tmp_path / "store")
    assert main(["score", str(still), "--output", str(tmp_path / "no2"), "--rewards", "motion"]) == 2
    assert "scores videos, item 0 is an image" in capsys.readouterr().err


def test_answers_that_are_no_numbers_are_counted_listed_and_in_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    score = Oracle.score

    def unsure(self: Oracle, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
        found = score(self, media, prompts, metadata)
        found[torch.tensor([prompt == str(CAPTIONS[0]) for prompt in prompts])] = math.nan
        return found

    monkeypatch.setattr(Oracle, "score", unsure)
    folder, output = store(tmp_path / "store"), tmp_path / "scored"
    words = ["score", str(folder), "--rewards", "oracle", "--output", str(output)]
    assert main(words) == 2
    assert "2 of 8 scores by oracle@2+facts are NaN, infinite or of a wrong shape" in capsys.readouterr().err
    assert main([*words, "--max_unusable", "0.3", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["scores"]
    assert (told["count"], told["not_finite"]) == (8, 2)
    assert len((output / "quarantine.jsonl").read_text().splitlines()) == 2
    pairs = pair_view(read_store(output), score="oracle", max_unusable=0.3)
    assert [pair.record_id for pair in pairs] == ["r1", "r2", "r3"]
    assert pairs.left_out == {"candidates without a finite score": 2}
    for label in ("oracle", Combined(("oracle",))):
        assert [one.record_id for one in list_view(read_store(output), label, max_unusable=0.3)] == ["r1", "r2", "r3"]


def test_a_scorer_of_the_wrong_number_of_answers_gives_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Oracle, "score", lambda self, media, prompts, metadata=None: torch.zeros(len(media) + 1))
    words = ["score", str(store(tmp_path / "store")), "--rewards", "oracle", "--output", str(tmp_path / "scored")]
    assert main(words) == 2
    assert "8 of 8 scores by oracle" in capsys.readouterr().err

"""Clips are judged part by part, by rewards and by judges, and the labels train DenseDPO."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref import rewards
from diffpref.cli import main
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.media import Clip
from diffpref.data import read_store, write_store
from diffpref.data.clips import encode_clip
from diffpref.generation import PartSettings, judge_parts, judge_parts_of_store, summarise_parts
from diffpref.ranking import equal_parts
from diffpref.shapes.motion import MovingCaption, moving_captions, render_clip

FPS = 8.0
CAPTIONS = moving_captions("seen")


def clip(*frames: np.ndarray, fps: float | None = FPS) -> Candidate:
    return Candidate(bytes=encode_clip(Clip(np.concatenate(frames), fps)))


def spoiled(caption: MovingCaption, wrong: slice, seed: int = 0) -> Candidate:
    """A clip of the caption, some frames of which show nothing."""
    frames = render_clip(caption, np.random.default_rng(seed))
    frames[wrong] = 240
    return clip(frames)


def pair(number: int = 0, first: slice = slice(0), second: slice = slice(0)) -> Record:
    caption = CAPTIONS[number]
    return Record(f"r{number}", str(caption), (spoiled(caption, first), spoiled(caption, second)))


def labels(record: Record) -> list[float]:
    return [judgement.probability for judgement in record.judgements]


class Brighter:
    """Likes the brighter of two clips, or whichever is shown first."""

    def __init__(self, both_orders: bool = False, first: bool = False) -> None:
        self.both_orders, self.first = both_orders, first
        self.asked = 0

    def compare(self, first: Sequence[Clip], second: Sequence[Clip], prompts: Sequence[str]) -> torch.Tensor:
        self.asked += len(prompts)
        gaps = [float(a.frames.mean()) - float(b.frames.mean()) for a, b in zip(first, second, strict=True)]
        return torch.tensor([1.0 if self.first else 1 / (1 + math.exp(-gap)) for gap in gaps])


def test_parts_are_seconds_and_a_short_last_one_belongs_to_the_one_before() -> None:
    assert equal_parts(121, fps=24)[-1] == (96, 121) and len(equal_parts(121, fps=24)) == 5
    assert equal_parts(10, fps=4) == [(0, 4), (4, 8), (8, 10)]
    assert equal_parts(60, fps=30, seconds=0.7) == [(0, 21), (21, 42), (42, 60)]
    with pytest.raises(ConfigError, match=r"0.1 s at 8 frames a second hold no frame"):
        equal_parts(8, fps=8, seconds=0.1)


def test_a_reward_says_of_each_part_which_clip_is_better() -> None:
    record = pair(0, first=slice(6, 8), second=slice(0, 4))  # the first ends badly, the second begins so
    (judged,), unread = judge_parts([record], {"oracle": rewards.load("oracle")}, PartSettings(0.5))
    assert [(j.start, j.end) for j in judged.judgements] == [(0.0, 0.5), (0.5, 1.0)]
    assert labels(judged) == [1.0, 0.0] and unread == 0
    assert {j.annotator for j in judged.judgements} == {"oracle@2+facts"}
    (lenient,), _ = judge_parts([record], {"oracle": rewards.load("oracle")}, PartSettings(0.5, tie=5.0))
    assert labels(lenient) == [0.5, 0.5]
    (same,), _ = judge_parts([pair(1)], {"oracle": rewards.load("oracle")}, PartSettings(0.5))
    assert labels(same) == [0.5, 0.5]


def test_a_judge_is_asked_in_both_orders_and_a_contradiction_is_a_tie() -> None:
    record = pair(0, second=slice(4, 8))  # the second is brighter at the end
    fair, stubborn, own = Brighter(), Brighter(first=True), Brighter(both_orders=True)
    for judge, told, asked in ((fair, [0.5, 0.0], 4), (stubborn, [0.5, 0.5], 4), (own, [0.5, 0.0], 2)):
        (judged,), _ = judge_parts([record], {"judge": judge}, PartSettings(0.5))
        assert labels(judged) == told and judge.asked == asked
    (lenient,), _ = judge_parts([record], {"judge": fair}, PartSettings(0.5, tie=0.5))
    assert labels(lenient) == [0.5, 0.5]


def test_several_annotators_stand_side_by_side_and_a_second_look_replaces_the_first() -> None:
    record = replace(pair(0, second=slice(4, 8)), judgements=(Judgement(0, 1, 0.9, annotator="oracle@2+facts"),))
    named = {"oracle": rewards.load("oracle"), "bright": Brighter()}
    (judged,), _ = judge_parts([record], named, PartSettings(0.5))
    (again,), _ = judge_parts([judged], named, PartSettings(1.0))
    assert [j.annotator for j in judged.judgements] == ["oracle@2+facts"] * 3 + ["bright"] * 2
    assert [(j.annotator, j.end) for j in again.judgements] == [
        ("oracle@2+facts", None),  # of the whole
        ("oracle@2+facts", 1.0),
        ("bright", 1.0),
    ]


def test_an_answer_that_is_no_number_gives_no_judgement() -> None:
    class Mute(Brighter):
        def compare(self, first: Sequence[Clip], second: Sequence[Clip], prompts: Sequence[str]) -> torch.Tensor:
            said = super().compare(first, second, prompts)
            return torch.where(torch.tensor([one.frames.max() > 250 for one in first]), math.nan, said)

    frames = [np.full((4, 32, 32, 3), shade, np.uint8) for shade in (100, 255)]
    record = Record("r", "p", (clip(*frames), clip(frames[0], frames[0])))
    (judged,), unread = judge_parts([record], {"judge": Mute()}, PartSettings(0.5))
    assert labels(judged) == [0.5] and unread == 1


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (lambda frames: clip(frames[:7]), "one length and speed, got 8 frames at 8.0 a second and 7 frames at 8.0"),
        (lambda frames: clip(frames, fps=4.0), "got 8 frames at 8.0 a second and 8 frames at 4.0 a second"),
        (lambda frames: Candidate(text="no clip"), "candidate 1"),
    ],
)
def test_clips_that_cannot_be_compared_by_parts_are_refused(second: Callable[..., Candidate], told: str) -> None:
    frames = render_clip(CAPTIONS[0], np.random.default_rng(0))
    record = Record("r", "p", (clip(frames), second(frames)))
    with pytest.raises(DataError, match=rf"record 'r'.*{told}"):
        judge_parts([record], {"judge": Brighter()}, PartSettings())


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_settings_are_checked(value: float) -> None:
    with pytest.raises(ConfigError, match="segments: must be a number of seconds > 0"):
        PartSettings(value)
    if value != 0:
        with pytest.raises(ConfigError, match="tie: must be a number >= 0"):
            PartSettings(1.0, value)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Eight pairs: of the even ones the first ends badly, of the odd ones the second begins so."""
    records = [
        pair(number, slice(4, 8) if number % 2 == 0 else slice(0), slice(0, 4) if number % 2 else slice(0))
        for number in range(8)
    ]
    write_store(tmp_path / "clips", [replace(one, source="guided") for one in records])
    return tmp_path / "clips"


def test_an_answer_a_question_is_expected() -> None:
    class Short(Brighter):
        def compare(self, first: Sequence[Clip], second: Sequence[Clip], prompts: Sequence[str]) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(ShapeError, match=r"'judge' gave shape \(1,\) for 2 questions about parts"):
        judge_parts([pair()], {"judge": Short()}, PartSettings(0.5))


def test_too_many_unreadable_answers_stop_the_work(store: Path, tmp_path: Path) -> None:
    class Silent(Brighter):
        def compare(self, first: Sequence[Clip], second: Sequence[Clip], prompts: Sequence[str]) -> torch.Tensor:
            return torch.full((len(prompts),), math.nan)

    with pytest.raises(DataError, match="16 of 16 answers about parts are NaN or infinite, more than the 1% of all"):
        judge_parts_of_store(read_store(store), {"judge": Silent()}, tmp_path / "judged", PartSettings(0.5))

    class Once(Brighter):
        def compare(self, first: Sequence[Clip], second: Sequence[Clip], prompts: Sequence[str]) -> torch.Tensor:
            said = super().compare(first, second, prompts)
            return said.fill_(math.nan) if self.asked <= len(prompts) else said

    few = {"unit_size": 2, "max_unusable": 0.2}  # two of the first four answers, and two of all sixteen
    judged = judge_parts_of_store(read_store(store), {"judge": Once()}, tmp_path / "few", PartSettings(0.5), **few)
    assert sum(len(record.judgements) for record in judged) == 14
    with pytest.raises(ConfigError, match="is the store that is judged"):
        judge_parts_of_store(read_store(store), {"judge": Brighter()}, store)
    with pytest.raises(ConfigError, match="no judges"):
        judge_parts_of_store(read_store(store), {}, tmp_path / "judged")


def test_what_the_command_judges_trains_dense_and_structural_dpo(
    store: Path, tmp_path: Path, recipe_keys: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffpref.config import build_recipe
    from diffpref.models import registry
    from diffpref.training import Trainer

    judged = tmp_path / "judged"
    words = ["score", str(store), "--rewards", "oracle", "--segments", "0.5", "--output", str(judged), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)["parts"]
    assert told == [{"annotator": "oracle@2+facts", "first": 4, "second": 4, "ties": 8}]
    assert [vars(one) for one in summarise_parts(read_store(judged))] == told
    assert main([*words[:-1]]) == 0  # it is there already
    assert "first better in 4 parts, second in 4, ties 8" in capsys.readouterr().out

    registry.get("unet3d").tiny().pipeline().save_pretrained(tmp_path / "model")
    rows = {}
    for method in ("dense_dpo", "structural_dpo"):
        keys = recipe_keys(
            model={"family": "unet3d", "path": str(tmp_path / "model")},
            data={"source": str(judged), "num_frames": 8, "resolution": 32, "cache": str(tmp_path / "cache")},
            method=method,
            training={"steps": 1, "batch_size": 8},
            output=str(tmp_path / method),
        )
        trainer = Trainer(build_recipe(keys))
        rows[method] = list(trainer.steps())
        items = trainer.batches.items
        assert [item.groups["chosen"] for item in items] == [1, 0] * 4
        if method == "dense_dpo":
            seen = trainer.batches.batch([(0, 0), (1, 0)]).columns["segment_label"].tolist()
            assert seen == [[0.0] * 4 + [1.0] * 4, [1.0] * 4 + [0.0] * 4]
    assert all(found[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) for found in rows.values())
    assert all(0 < found[0]["grad_norm"] < math.inf for found in rows.values())


def test_where_no_record_has_two_clips_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = pair()
    write_store(tmp_path / "single", [replace(whole, candidates=whole.candidates[:1])])
    words = ["score", str(tmp_path / "single"), "--rewards", "oracle", "--segments", "1"]
    assert main([*words, "--output", str(tmp_path / "judged")]) == 0
    assert "no part is judged: parts are compared between the clips of a record" in capsys.readouterr().out


def test_ties_are_of_segments_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "x", "--rewards", "oracle", "--tie", "1", "--output", "y"]) == 2
    assert "--tie: is for --segments" in capsys.readouterr().err

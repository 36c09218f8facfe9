"""Judges that are asked in words, by injected answers below the reading, and by tiny real models."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_vlms import numbers, save_llava, save_qwen2_vl

from diffpref import rewards
from diffpref.core.contracts import AspectReward, Candidate, Judge, Record, Reward
from diffpref.core.errors import ConfigError, DataError, ModelError, ShapeError
from diffpref.core.media import Clip
from diffpref.data.images import encode_png
from diffpref.loops.asking import Asked
from diffpref.loops.judging import load_rewards, parse_reward
from diffpref.rewards import unified_reward, vlm_judge
from diffpref.rewards._asking import Template, Told
from diffpref.rewards._judging import ClipJudge
from diffpref.rewards._vlm import Question, open_vlm

RED, BLUE, GREY = (Image.new("RGB", (24, 16), colour) for colour in ("red", "blue", "grey"))


class Voice:
    """A model that says what a function makes of the pictures that it is shown, and remembers what it was asked."""

    def __init__(self, says: Any) -> None:
        self.says, self.asked = says, list[Question]()

    def __call__(self, questions: Sequence[Question]) -> list[str]:
        self.asked += questions
        return [self.says(*(part for part in q.parts if isinstance(part, Image.Image))) for q in questions]


def redness(picture: Image.Image) -> float:
    pixels = np.asarray(picture, dtype=np.float64)
    return float(pixels[..., 0].mean() - pixels[..., 2].mean())


def fair(first: Image.Image, second: Image.Image) -> str:
    gap = redness(first) - redness(second)
    return "Both images are equally good" if gap == 0 else f"Image {1 if gap > 0 else 2} is better"


# ------------------------------------------------------------ one picture


def test_a_picture_is_scored_by_the_number_that_is_said() -> None:
    voice = Voice(lambda picture: "Bold.\nScore: 5" if redness(picture) > 0 else "Score: 1.5")
    judge = vlm_judge.judge_of(voice)
    assert isinstance(judge, Reward) and not isinstance(judge, AspectReward)
    assert judge.score([RED, BLUE], ["a", "b"]).tolist() == [5.0, 1.5]
    assert [q.text.count("request:\na\n") for q in voice.asked] == [1, 0]
    assert judge.info.range == (1.0, 5.0) and judge.info.pair_scale is None
    assert judge.score([], []).shape == (0,)


def test_what_cannot_be_read_is_nan_counted_and_warned_of_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    judge = vlm_judge.judge_of(Voice(lambda picture: "Score: 4" if redness(picture) > 0 else "Score: 9"))
    with caplog.at_level(logging.WARNING):
        scores = judge.score([RED, BLUE, GREY], ["a"] * 3)
    assert scores[0] == 4 and scores[1:].isnan().all()
    assert (judge.transcript.asked, judge.transcript.unread) == (3, 2)
    assert [r.getMessage() for r in caplog.records] == [
        "reward 'vlm_judge': 2 of 3 answers could not be read and are NaN (2 of 3 so far); the first is 'Score: 9'"
    ]
    judge.score([RED], ["a"])
    assert len(caplog.records) == 1 and (judge.transcript.asked, judge.transcript.unread) == (4, 2)


def test_raw_texts_are_kept_on_request(tmp_path: Path) -> None:
    log = tmp_path / "said.jsonl"
    judge = vlm_judge.judge_of(Voice(lambda picture: "Score: 4" if redness(picture) > 0 else "hm"), log=str(log))
    judge.score([RED], ["a red sea"])
    judge.score([BLUE], ["a blue sea"])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["answer"], line["values"]) for line in lines] == [("Score: 4", [4.0]), ("hm", [None])]
    assert "a blue sea" in lines[1]["question"] and lines[0]["version"] == judge.info.version


@pytest.mark.parametrize(
    ("options", "answer", "told"),
    [
        ({}, "Score: 7", "end with 'Score: N'"),
        ({"label": "Mark"}, "Mark: 7", "end with 'Mark: N'"),
        ({"tag": "mark"}, "<mark>7</mark>", "end with '<mark>N</mark>'"),
        ({"label": ""}, "7", "Answer with the number only"),
    ],
)
def test_a_judge_is_told_how_its_number_is_read(options: dict[str, Any], answer: str, told: str) -> None:
    judge = vlm_judge.judge_of(Voice(lambda picture: answer), high=10, **options)
    assert judge.score([RED], ["a"]).item() == 7
    assert told in judge.template.text and "from 1 (useless) to 10 (perfect)" in judge.template.text


def test_the_version_changes_with_everything_that_changes_numbers() -> None:
    voice = Voice(lambda *pictures: "")
    made = [
        vlm_judge.judge_of(voice, **options).info
        for options in (
            {},
            {"low": 0},
            {"high": 10},
            {"label": "Mark"},
            {"tag": "mark"},
            {"template": Template("{prompt}?")},
            {"version": "2"},
            {"mode": "pairs"},
            {"mode": "pairs", "both_orders": False},
            {"mode": "clips"},
            {"mode": "clips", "rate": 4.0},
            {"resize": 512},
        )
    ]
    assert len({(info.version, info.preprocessing) for info in made}) == len(made)


def test_a_number_of_answers_that_is_not_that_of_the_questions_is_refused() -> None:
    judge = vlm_judge.judge_of(lambda questions: ["Score: 1"])
    with pytest.raises(DataError, match="asked 2 questions and got 1 answers"):
        judge.score([RED, BLUE], ["a", "b"])


# ------------------------------------------------------------ two pictures


def test_two_pictures_are_asked_about_in_both_orders() -> None:
    voice = Voice(fair)
    judge = vlm_judge.judge_of(voice, mode="pairs")
    assert isinstance(judge, Judge) and not hasattr(judge, "score")
    assert judge.compare([RED, BLUE, RED], [BLUE, RED, RED], ["a"] * 3).tolist() == [1.0, 0.0, 0.5]
    assert len(voice.asked) == 6
    shown = [[part for part in q.parts if isinstance(part, Image.Image)] for q in voice.asked]
    for forward, backward in zip(shown[:3], shown[3:], strict=True):
        assert [redness(p) for p in forward] == [redness(p) for p in reversed(backward)]
    assert judge.compare([], [], []).shape == (0,)


@pytest.mark.parametrize("place", [1, 2])
def test_who_likes_a_place_calls_every_pair_a_tie(place: int) -> None:
    voice = Voice(lambda first, second: f"Image {place} is better")
    assert vlm_judge.judge_of(voice, mode="pairs").compare([RED, BLUE], [BLUE, GREY], ["a"] * 2).tolist() == [0.5, 0.5]
    once = vlm_judge.judge_of(voice, mode="pairs", both_orders=False)
    assert once.compare([RED], [BLUE], ["a"]).item() == float(place == 1)


def test_a_verdict_that_cannot_be_read_in_one_order_is_nan(caplog: pytest.LogCaptureFixture) -> None:
    judge = vlm_judge.judge_of(
        Voice(lambda first, second: "Image 1 is better" if redness(first) > 0 else "Who knows"), mode="pairs"
    )
    found = judge.compare([RED, RED], [BLUE, RED], ["a"] * 2)
    assert found[0].isnan() and found[1] == 0.5
    assert judge.transcript.unread == 1 and "1 of 4 answers" in caplog.text


def test_two_clips_are_asked_about_by_their_frames_in_both_orders() -> None:
    def fewer_reds(*frames: Image.Image) -> str:
        half = len(frames) // 2
        reds = [sum(redness(frame) > 0 for frame in side) for side in (frames[:half], frames[half:])]
        return "Both are equally good" if reds[0] == reds[1] else f"Video {1 if reds[0] < reds[1] else 2} is better."

    voice = Voice(fewer_reds)
    judge = vlm_judge.judge_of(voice, mode="clips", rate=4.0)
    assert isinstance(judge, Judge) and not hasattr(judge, "score") and judge.info.media == "video"
    calm, hot = (Clip([BLUE, BLUE, last, last], fps=8.0) for last in (BLUE, RED))
    assert judge.compare([calm, hot, hot], [hot, calm, hot], ["a"] * 3).tolist() == [1.0, 0.0, 0.5]
    shown = [[part for part in q.parts if isinstance(part, Image.Image)] for q in voice.asked]
    assert [len(pictures) for pictures in shown] == [4] * 6  # two of either clip: 4 a second of 8
    slow = Clip([BLUE, RED, RED], fps=None)
    assert judge.compare([slow], [slow], ["a"]).item() == 0.5 and len(voice.asked[-1].parts) > 6
    with pytest.raises(DataError, match="scores videos, item 0 is an image"):
        judge.compare([RED], [RED], ["a"])


@pytest.mark.parametrize(
    ("forward", "backward", "told"),
    [(0.9, 0.2, 0.85), (0.1, 0.6, 0.25), (0.9, 0.8, 0.5), (0.3, 0.1, 0.5), (0.9, 0.5, 0.5), (0.9, math.nan, math.nan)],
)
def test_probabilities_of_two_clips_that_contradict_each_other_are_a_tie(
    forward: float, backward: float, told: float
) -> None:
    def says(questions: Sequence[Question]) -> list[Told]:
        return [Told((forward,), ""), Told((backward,), "")]

    options = (says, vlm_judge.default_template("clips", "probability"))
    info = vlm_judge.judge_of(Voice(fair), mode="clips").info
    clip = Clip([BLUE, BLUE], fps=8.0)
    said = ClipJudge(info, *options, probabilities=True).compare([clip], [clip], ["a"])
    assert said.item() == pytest.approx(told, nan_ok=True)


def test_pairs_are_checked() -> None:
    judge = vlm_judge.judge_of(Voice(fair), mode="pairs")
    with pytest.raises(ShapeError, match="1 items but 2 prompts"):
        judge.compare([RED], [BLUE], ["a", "b"])
    with pytest.raises(ShapeError, match="2 items but 1 prompts"):
        judge.compare([RED], [BLUE, RED], ["a"])
    with pytest.raises(DataError, match="item 0 is a text"):
        judge.compare(["red"], [BLUE], ["a"])


def test_a_judge_of_pairs_is_refused_where_scores_are_needed_and_taken_where_it_judges(tmp_path: Path) -> None:
    folder = str(save_llava(tmp_path, answers=["Image 1 is better\n", "Image 2 is better\n"]))
    named = [parse_reward(f"{{vlm_judge: {{path: {folder}, mode: pairs, max_new_tokens: 1}}}}")]
    with pytest.raises(ConfigError, match="compares two items with these options"):
        load_rewards(named, "cpu")
    judge = load_rewards(named, "cpu", pairs=True)["vlm_judge"]
    assert isinstance(judge, Judge)
    pictures = tuple(Candidate(bytes=encode_png(np.asarray(picture))) for picture in (RED, BLUE, GREY))
    ((record, verdict),) = Asked(judge, "vlm_judge")([Record("r", "a sea", pictures)])
    assert verdict is not None and verdict.beats(0, 1) + verdict.beats(1, 0) == 1.0
    assert record.candidates == pictures and judge.transcript.asked == 12


# ------------------------------------------------------------ templates


def test_places_of_a_template_are_filled_once() -> None:
    question = Template("Of {image}: is it {prompt}? {json: 1}").ask("{image} {prompt}", RED)
    assert question.parts == ("Of ", RED, ": is it {image} {prompt}? {json: 1}")
    assert Template("Is it {prompt}?").ask("red", RED, BLUE).parts == (RED, BLUE, "\nIs it red?")
    assert Template("{image}{image}{prompt}").ask("red", RED, BLUE).parts == (RED, BLUE, "red")


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({}, "{image} good?", "no place {prompt}"),
        ({}, "{image} {image} {prompt}", "2 places {image}, and 1 are shown"),
        ({"mode": "pairs"}, "{image} {prompt}", "1 places {image}, and 2 are shown"),
        ({"low": 5}, "{prompt}", "low must be below high, got 5 and 5"),
        ({"mode": "checklist"}, "{prompt}", "go together"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], text: str, message: str) -> None:
    for module in (vlm_judge, unified_reward):
        if module is unified_reward and (options.get("low") or options.get("mode") == "checklist"):
            continue
        with pytest.raises(ConfigError, match=re.escape(message)):
            module.judge_of(Voice(fair), template=Template(text), **options)


def test_a_template_of_a_file_is_asked_in_its_words(tmp_path: Path) -> None:
    folder = str(save_llava(tmp_path / "model", answers=numbers(step=1, form="Score: {:g}\n")))
    mine = tmp_path / "mine.txt"
    mine.write_text("{image} How much of '{prompt}' is there? End with: Score: and 1 to 5\n")
    log = tmp_path / "said.jsonl"
    own = rewards.load("vlm_judge", folder, template=str(mine), max_new_tokens=1, log=str(log))
    assert 1 <= own.score([RED], ["a sea"]).item() <= 5
    assert json.loads(log.read_text())["question"] == " How much of 'a sea' is there? End with: Score: and 1 to 5"
    assert own.info.version != rewards.load("vlm_judge", folder, max_new_tokens=1).info.version
    with pytest.raises(ConfigError, match=r"nothing\.txt is no text file"):
        rewards.load("vlm_judge", folder, template=str(tmp_path / "nothing.txt"))


def test_what_is_fetched_is_all_that_a_processor_may_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = save_llava(tmp_path, answers=["Score: 3\n"])
    asked: list[list[str]] = []

    def fetch(hub_id: str, *, allow_patterns: list[str], **settings: Any) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    judge = rewards.load("vlm_judge", "someone/something", max_new_tokens=1)
    assert judge.score([RED], ["a"]).item() == 3
    names = [file.name for file in folder.iterdir()]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in asked[0])] == []


def test_pickled_weights_are_read_once_they_are_trusted(tmp_path: Path) -> None:
    folder = save_llava(tmp_path, answers=["Score: 3\n"])
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="reward 'vlm_judge'"):
        rewards.load("vlm_judge", str(folder))
    judge = rewards.load("vlm_judge", str(folder), max_new_tokens=1, allow_pickle=True)
    assert judge.score([RED], ["a"]).item() == 3


# ------------------------------------------------------------ probabilities


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_qwen2_vl(tmp_path_factory.mktemp("qwen")))


def test_the_expected_score_is_that_of_the_networks_probabilities(folder: str) -> None:
    judge = rewards.load("vlm_judge", folder, reading="probability", low=2, high=4)
    found = judge.score([RED, BLUE], ["a", "b"])
    vlm = open_vlm("x", folder)
    template = vlm_judge.default_template("points", "probability", low=2, high=4)
    for picture, prompt, score in zip((RED, BLUE), "ab", found, strict=True):
        logits = vlm.read([template.ask(prompt, picture)], lambda logits: logits[:, -1])[0]
        chances = np.exp([float(logits[vlm.tokens(digit)[0]]) for digit in "234"])
        assert score.item() == pytest.approx((chances * [2, 3, 4]).sum() / chances.sum(), abs=1e-5)
    assert judge.transcript.unread == 0 and judge.info.range == (2.0, 4.0)


def test_the_probability_of_the_better_one_is_the_mean_of_both_orders(folder: str) -> None:
    both = rewards.load("vlm_judge", folder, mode="pairs", reading="probability")
    once = rewards.load("vlm_judge", folder, mode="pairs", reading="probability", both_orders=False)
    forward, backward = once.compare([RED], [BLUE], ["a"]), once.compare([BLUE], [RED], ["a"])
    assert both.compare([RED], [BLUE], ["a"]).item() == pytest.approx((forward + 1 - backward).item() / 2, abs=1e-6)
    assert both.compare([RED], [RED], ["a"]).item() == pytest.approx(0.5, abs=1e-6)
    assert 0 < forward.item() < 1


def test_half_precision_reads_probabilities_in_float32(folder: str) -> None:
    judge = rewards.load("vlm_judge", folder, reading="probability", precision="bfloat16")
    scores = judge.score([RED] * 8, [f"a sea, number {i}" for i in range(8)])
    assert len(set(scores.tolist())) == 8


def test_answers_that_begin_alike_are_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="begin with the same token"):
        rewards.load("vlm_judge", folder, reading="probability", high=10)
    with pytest.raises(ConfigError, match="needs whole limits"):
        rewards.load("vlm_judge", folder, reading="probability", low=0.5)


# ------------------------------------------------------------ UnifiedReward


def test_pictures_are_scaled_to_squares_as_the_official_code_does() -> None:
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    voice = Voice(lambda picture: "Final Score: 3")
    judge = unified_reward.judge_of(voice)
    assert judge.score([wide], ["a"]).item() == 3
    (shown,) = (part for part in voice.asked[0].parts if isinstance(part, Image.Image))
    assert np.array_equal(np.asarray(shown), np.asarray(wide.resize((512, 512))))
    assert judge.info.preprocessing == "square 512"


def test_a_scale_of_ten_is_read_as_numbers() -> None:
    judge = unified_reward.judge_of(Voice(lambda p: "Final Score: 10" if redness(p) > 0 else "Final Score: 9"), high=10)
    assert judge.score([RED, BLUE], ["a"] * 2).tolist() == [10.0, 9.0]
    assert "from 1 to 10" in judge.template.text


def test_legacy_readings_are_those_of_published_code() -> None:
    voice = Voice(lambda p: "Final Score: 4" if redness(p) > 0 else "nothing")
    assert unified_reward.judge_of(voice, legacy=True).score([RED, BLUE], ["a"] * 2).tolist() == pytest.approx([0.8, 0])
    pairs = unified_reward.judge_of(Voice(lambda a, b: "undecided"), mode="pairs", legacy=True, both_orders=False)
    assert pairs.compare([RED], [BLUE], ["a"]).item() == 1.0
    with pytest.raises(ConfigError, match="legacy readings are of mode points with high 5"):
        unified_reward.judge_of(voice, legacy=True, high=10)
    with pytest.raises(ConfigError, match="has none to choose"):
        unified_reward.judge_of(voice, mode="pairs", high=10)


def test_aspects_are_read_line_by_line_and_their_mean_is_the_score() -> None:
    lines = "Alignment Score (1-5): 4.5\nCoherence Score (1-5): 3\nStyle Score (1-5): {}"
    judge = unified_reward.judge_of(Voice(lambda p: lines.format(1.5 if redness(p) > 0 else "good")), mode="aspects")
    assert isinstance(judge, AspectReward) and judge.info.aspects == ("alignment", "coherence", "style")
    assert torch.equal(judge.score([RED, BLUE], ["a"] * 2)[:1], torch.tensor([3.0]))
    found = judge.score_aspects([RED, BLUE], ["a"] * 2)
    assert found["alignment"].tolist() == [4.5, 4.5] and found["style"].isnan().tolist() == [False, True]
    assert judge.transcript.unread == 2  # asked twice


def test_the_pairs_of_unified_reward_are_asked_in_both_orders(tmp_path: Path) -> None:
    judge = unified_reward.judge_of(Voice(fair), mode="pairs")
    assert judge.compare([RED, BLUE], [BLUE, RED], ["a"] * 2).tolist() == [1.0, 0.0]
    verdicts = ["Image 1 is better\n", "Image 2 is better\n", "Both images are equally good\n"]
    real = rewards.load(
        "unified_reward", str(save_llava(tmp_path, answers=verdicts)), mode="pairs", max_new_tokens=1, resize=16
    )
    found = real.compare([RED, BLUE, GREY], [BLUE, GREY, RED], ["a"] * 3)
    swapped = real.compare([BLUE, GREY, RED], [RED, BLUE, GREY], ["a"] * 3)
    assert torch.equal(found, 1 - swapped) and set(found.tolist()) <= {0.0, 0.5, 1.0}


def test_real_models_say_aspects_too(tmp_path: Path) -> None:
    form = "Alignment Score (1-5): {:.1f}\nCoherence Score (1-5): {:.1f}\nStyle Score (1-5): {:.1f}\n"
    folder = str(save_llava(tmp_path, answers=numbers(step=0.1, form=form)))
    judge = rewards.load("unified_reward", folder, mode="aspects", max_new_tokens=1)
    found = judge.score_aspects([RED, BLUE], ["a", "b"])
    assert all(scores.isfinite().all() for scores in found.values())
    assert torch.allclose(judge.score([RED, BLUE], ["a", "b"]), torch.stack(list(found.values())).mean(0))

"""Scores kept on disk are the reward's own, whoever asks, and nothing that was torn is ever read."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reward_cases import clips, pictures, sentences

from diffpref import rewards
from diffpref.core.contracts import AspectReward, Clip, Judge, Reward, RewardInfo, Sound
from diffpref.core.errors import ConfigError, DataError, ShapeError

INFO = RewardInfo(name="counting", version="1", licence="none", range=(0.0, 1.0), preprocessing="as-is")


def _size(item: Any) -> float:
    item = item.samples if isinstance(item, Sound) else item.frames if isinstance(item, Clip) else item
    return float(len(item)) if isinstance(item, str) else float(np.asarray(item, dtype=np.float64).mean())


class Counting:
    """Scores an item by its mean and the length of its prompt, and remembers how often it was asked."""

    def __init__(self, info: RewardInfo = INFO, answers: Mapping[int, float] | None = None) -> None:
        self.info, self.asked, self.answers = info, 0, dict(answers or {})

    def score(
        self, media: Sequence[Any], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> torch.Tensor:
        self.asked += len(media)
        told = metadata or [{}] * len(media)
        values = [
            self.answers.get(number, _size(item) + 0.1 * len(prompt) * self.info.needs_prompt + len(str(entry)) / 7)
            for number, (item, prompt, entry) in enumerate(zip(media, prompts, told, strict=True))
        ]
        return torch.tensor(values, dtype=torch.float32)


class Judging(Counting):
    def __init__(self) -> None:
        super().__init__(replace(INFO, aspects=("mean", "twice")))

    def score_aspects(self, media: Any, prompts: Any, metadata: Any = None) -> dict[str, torch.Tensor]:
        scores = self.score(media, prompts)
        return {"mean": scores, "twice": 2 * scores}

    def compare(self, first: Any, second: Any, prompts: Any) -> torch.Tensor:
        return torch.sigmoid(self.score(first, prompts) - self.score(second, prompts) + 0.01)


def scores_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jsonl"))


def test_scores_are_the_same_and_asked_for_once(tmp_path: Path) -> None:
    inner, plain = Counting(), Counting()
    reward = rewards.cached(inner, tmp_path)
    media, prompts = pictures(5), sentences(5)
    expected = plain.score(media, prompts)
    assert torch.equal(reward.score(media[:3], prompts[:3]), expected[:3])
    assert torch.equal(reward.score(media, prompts), expected)  # two are new
    assert inner.asked == 5 and (reward.hits, reward.asked) == (3, 5)
    later = rewards.cached(Counting(), tmp_path)
    order = [4, 0, 2, 1, 3]
    assert torch.equal(later.score([media[i] for i in order], [prompts[i] for i in order]), expected[order])
    assert later.inner.asked == 0 and later.info == INFO and isinstance(later, Reward)


def test_equal_items_of_one_call_are_asked_about_once(tmp_path: Path) -> None:
    reward = rewards.cached(Counting(), tmp_path)
    assert len(set(reward.score(pictures(1) * 4, ["p"] * 4).tolist())) == 1
    assert reward.inner.asked == 1
    assert reward.score([], []).shape == (0,)


def test_the_same_pixels_are_found_whatever_holds_them(tmp_path: Path) -> None:
    reward = rewards.cached(Counting(), tmp_path)
    array = pictures(1)[0]
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    scores = [reward.score([item], ["p"]).item() for item in (array, Image.fromarray(array), tensor)]
    assert len(set(scores)) == 1 and reward.inner.asked == 1


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({}, 0),
        ({"name": "other"}, 2),
        ({"version": "2"}, 2),
        ({"preprocessing": "cropped"}, 2),
        ({"licence": "another", "pair_scale": 3.0}, 0),  # nothing that a score follows from
    ],
)
def test_a_score_belongs_to_name_version_and_preprocessing(tmp_path: Path, change: dict[str, Any], asked: int) -> None:
    rewards.cached(Counting(), tmp_path).score(pictures(2), sentences(2))
    other = rewards.cached(Counting(replace(INFO, **change)), tmp_path)
    other.score(pictures(2), sentences(2))
    assert other.inner.asked == asked


def test_prompt_and_metadata_are_looked_at_exactly_where_the_reward_reads_them(tmp_path: Path) -> None:
    item, kinds = pictures(1)[0], [{"objects": ["cup"]}, {"objects": ["cup", "dog"]}]
    blind = rewards.cached(Counting(replace(INFO, name="blind", needs_prompt=False)), tmp_path)
    assert len(set(blind.score([item] * 3, sentences(3), [{"a": 1}, {"a": 2}, {"a": 3}]).tolist())) == 1
    assert blind.inner.asked == 1
    reading = rewards.cached(Counting(replace(INFO, name="reading", needs_metadata=True)), tmp_path)
    scores = reading.score([item] * 4, ["p", "p", "pp", "p"], [*kinds, kinds[0], {"objects": ["cup"]}])
    assert reading.inner.asked == 3 and scores[0] == scores[3] and len(set(scores.tolist())) == 3
    with pytest.raises(DataError, match="'reading': metadata must be JSON values"):
        reading.score([item], ["p"], [{"objects": object()}])


@pytest.mark.parametrize(
    ("media", "kind"),
    [
        ([clips(1)[0], clips(2)[1], Clip(clips(1)[0], fps=8.0), clips(1)[0][:3]], "video"),
        ([Sound(np.full(9, 0.1), 16_000), Sound(np.full(9, 0.2), 16_000), Sound(np.full(9, 0.1), 8_000)], "audio"),
        (["a", "b", "a b"], "text"),
        ([np.zeros((4, 8, 3), np.uint8), np.zeros((8, 4, 3), np.uint8), np.ones((4, 8, 3), np.uint8)], "image"),
    ],
)
def test_items_of_every_kind_are_told_apart_by_all_that_a_reward_sees(tmp_path: Path, media: Any, kind: Any) -> None:
    reward = rewards.cached(Counting(replace(INFO, media=kind)), tmp_path)
    reward.score(media, ["p"] * len(media))
    reward.score(media, ["p"] * len(media))
    assert reward.inner.asked == len(media)
    wrong: Any = "a text" if kind != "text" else 3
    with pytest.raises(DataError, match="'counting' scores"):
        reward.score([wrong], ["p"])


def test_an_answer_that_was_not_readable_is_kept_unless_one_wants_to_ask_again(tmp_path: Path) -> None:
    unreadable = Counting(answers={0: math.nan, 1: math.inf})
    first = rewards.cached(unreadable, tmp_path).score(pictures(3), sentences(3))
    assert math.isnan(first[0]) and first[1] == math.inf
    later = rewards.cached(Counting(), tmp_path)
    kept = later.score(pictures(3), sentences(3))
    assert later.inner.asked == 0 and math.isnan(kept[0]) and kept[1] == math.inf
    asking = rewards.cached(Counting(), tmp_path, ask_again=True)
    assert torch.isfinite(asking.score(pictures(1), sentences(1))).all() and asking.inner.asked == 1
    _, new = sorted(scores_of(tmp_path), key=lambda file: file.stat().st_size, reverse=True)
    for name in ("0", "z"):  # whichever file is read last
        new = new.rename(new.with_name(f"{name}.jsonl"))
        assert torch.isfinite(rewards.cached(Counting(), tmp_path).score(pictures(1), sentences(1))).all()


def test_a_torn_line_and_lines_that_are_no_scores_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewards.cached(Counting(), tmp_path).score(pictures(3), sentences(3))
    (file,) = scores_of(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    for end in (len(lines[2]) - 1, 10, 1):  # killed while the last line was written
        file.write_bytes(b"".join(lines[:2]) + lines[2][:end])
        later = rewards.cached(Counting(), tmp_path)
        later.score(pictures(3), sentences(3))
        assert later.inner.asked == 1
        (new,) = set(scores_of(tmp_path)) - {file}
        new.unlink()
    file.write_bytes(lines[0] + b"\0\0\0\n[1]\n" + lines[1])
    later = rewards.cached(Counting(), tmp_path)
    later.score(pictures(3), sentences(3))
    assert later.inner.asked == 1 and "2 lines are no scores" in caplog.text


def test_a_torn_line_is_read_once_its_writer_has_ended_it(tmp_path: Path) -> None:
    rewards.cached(Counting(), tmp_path).score(pictures(2), sentences(2))
    (file,) = scores_of(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    reader = rewards.cached(Counting(), tmp_path)
    reader.score(pictures(1), sentences(1))
    file.write_bytes(whole)
    reader.score(pictures(2), sentences(2))
    assert reader.inner.asked == 0


def test_two_that_are_open_find_what_the_other_has_written(tmp_path: Path) -> None:
    one, other = (rewards.cached(Counting(), tmp_path) for _ in range(2))
    one.score(pictures(2), sentences(2))
    other.score(pictures(4), sentences(4))
    one.score(pictures(4), sentences(4))
    assert (one.inner.asked, other.inner.asked) == (2, 2) and len(scores_of(tmp_path)) == 2


def _score_some(folder: Path, first: int) -> None:
    reward = rewards.cached(Counting(), folder)
    for number in range(first, 40):
        reward.score(pictures(40, (4, 4))[number : number + 1], sentences(40)[number : number + 1])


def test_processes_share_a_folder_and_no_line_of_theirs_is_mixed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_score_some, args=(tmp_path, first)) for first in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    reward = rewards.cached(Counting(), tmp_path)
    scores = reward.score(pictures(40, (4, 4)), sentences(40))
    assert reward.inner.asked == 0 and torch.equal(scores, Counting().score(pictures(40, (4, 4)), sentences(40)))
    assert all(json.loads(line).keys() == {"key", "score"} for file in scores_of(tmp_path) for line in open(file))


def test_what_was_scored_before_a_failure_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffpref.rewards._score_cache.CHUNK", 2)

    class Failing(Counting):
        def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
            if self.asked >= 4:
                raise DataError("no more")
            return super().score(media, prompts, metadata)

    with pytest.raises(DataError, match="no more"):
        rewards.cached(Failing(), tmp_path).score(pictures(6), sentences(6))
    later = rewards.cached(Counting(), tmp_path)
    later.score(pictures(6), sentences(6))
    assert later.inner.asked == 2


def test_aspects_and_comparisons_are_kept_where_the_reward_offers_them(tmp_path: Path) -> None:
    plain = rewards.cached(Counting(), tmp_path)
    assert not any(hasattr(plain, name) for name in ("score_aspects", "compare", "score_tensors"))
    inner = Judging()
    reward: Any = rewards.cached(inner, tmp_path)
    assert isinstance(reward, AspectReward) and isinstance(reward, Judge)
    media, prompts = pictures(3), sentences(3)
    expected, wins = Judging().score_aspects(media, prompts), Judging().compare(media, media[::-1], prompts)
    for _ in range(2):
        found = reward.score_aspects(media, prompts)
        assert tuple(found) == ("mean", "twice") and all(torch.equal(found[a], expected[a]) for a in found)
        assert torch.equal(reward.compare(media, media[::-1], prompts), wins)
    assert inner.asked == 3 + 6
    assert not torch.equal(reward.compare(media[::-1], media, prompts), wins)  # the other order is another question
    with pytest.raises(ShapeError, match="3 items but 2 prompts"):
        reward.compare(media, media, prompts[:2])


def test_a_reward_with_weights_is_cached_with_its_gradient_left_alone(tmp_path: Path, caplog: Any) -> None:
    inner = rewards.load("pickscore", "bundled:shapes-pickscore")
    reward: Any = rewards.cached(inner, tmp_path)
    media, prompts = pictures(3), sentences(3)
    with caplog.at_level(logging.INFO, logger="diffpref.rewards"):
        assert torch.equal(reward.score(media, prompts), inner.score(media, prompts))
        assert torch.equal(reward.score(media, prompts), inner.score(media, prompts))
    assert "pickscore: 0 of 3 scores were there" in caplog.text and "pickscore: 3 of 3" in caplog.text
    assert reward.score_tensors(torch.rand(2, 3, 64, 64), prompts[:2]).shape == (2,)
    assert reward.info.preprocessing == "rgb+bicubic64+centre"
    (about,) = tmp_path.rglob("reward.json")
    assert json.loads(about.read_text())["preprocessing"] == reward.info.preprocessing


def test_lengths_and_shares_of_a_call_are_refused(tmp_path: Path) -> None:
    reward = rewards.cached(Counting(), tmp_path)
    with pytest.raises(ShapeError, match="2 items but 1 prompts"):
        reward.score(pictures(2), ["p"])

    class Short(Counting):
        def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
            return super().score(media, prompts, metadata)[:1]

    with pytest.raises(ShapeError, match=r"'counting': expected 2 scores, got shape \(1,\)"):
        rewards.cached(Short(), tmp_path).score(pictures(2), sentences(2))
    shares = rewards.load("pickscore", "bundled:shapes-pickscore", output="prob")
    with pytest.raises(ConfigError, match="asked together"):
        rewards.cached(shares, tmp_path)

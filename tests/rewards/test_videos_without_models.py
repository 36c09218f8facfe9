"""Rewards of videos that run no model of their own: motion, flicker and the mean over frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from diffpref import rewards
from diffpref.core.contracts import Clip, RewardInfo
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.rewards._frames import at_most, at_rate, middles
from diffpref.rewards.frame_mean import FrameMean

PICKSCORE = "bundled:shapes-pickscore"


class Brightness:
    """A reward of images that can be computed by hand: the mean of all values; nobody can read a black picture."""

    info = RewardInfo(name="brightness", version="1", licence="none", range=(0.0, 255.0), needs_metadata=True)

    def score(
        self, media: Sequence[Any], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> torch.Tensor:
        values = torch.tensor([float(np.mean(item)) for item in media])
        return torch.where(values > 0, values + (metadata[0]["bonus"] if metadata else 0), torch.nan)


def grey(*levels: int, size: tuple[int, int] = (6, 10)) -> np.ndarray:
    return np.stack([np.full((*size, 3), level, np.uint8) for level in levels])


def one(name: str, item: Any, **options: Any) -> float:
    return float(rewards.load(name, **options).score([item], [""])[0])


def test_flicker_is_vbenchs_formula() -> None:
    video = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    errors = [np.abs(a.astype(float) - b.astype(float)).mean() for a, b in zip(video[1:], video[:-1], strict=True)]
    assert one("flicker", video) == pytest.approx((255 - np.mean(errors)) / 255, abs=1e-6)
    assert one("flicker", grey(80, 80, 80)) == 1.0
    assert one("flicker", grey(0, 255)) == 0.0


def test_motion_is_the_mean_change_and_its_degree_the_share_of_changes_that_count() -> None:
    video = grey(0, 51, 51, 153)
    assert one("motion", video) == pytest.approx((0.2 + 0 + 0.4) / 3)
    assert one("motion", video, output="degree", threshold=0.1) == pytest.approx(2 / 3)
    assert one("motion", video, output="degree", threshold=0.3) == pytest.approx(1 / 3)
    assert one("motion", grey(7, 7)) == 0.0


def test_noise_within_a_block_is_no_motion() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    video = np.stack([board, 255 - board]).astype(np.uint8)[..., None].repeat(3, axis=-1)
    assert one("motion", video, block=1) == 1.0
    assert one("motion", video, block=4) == 0.0


@pytest.mark.parametrize("name", ["motion", "flicker"])
def test_one_frame_does_not_move(name: str) -> None:
    with pytest.raises(DataError, match="item 1: a video of one frame"):
        rewards.load(name).score([grey(1, 2), grey(1)], ["", ""])
    with pytest.raises(ConfigError, match="takes no path"):
        rewards.load(name, "somewhere")


@pytest.mark.parametrize(("total", "count"), [(1, 4), (4, 4), (5, 4), (9, 3), (100, 7), (81, 16)])
def test_frames_in_the_middle_of_equal_parts(total: int, count: int) -> None:
    places = middles(total, count)
    assert len(places) == min(total, count) == len(set(places)) and places == sorted(places)
    assert places[0] >= 0 and places[-1] < total
    assert abs((places[0] + places[-1]) - (total - 1)) <= 1  # as far from the start as from the end


@pytest.mark.parametrize("total", [1, 15, 16, 17, 48, 49, 97, 100, 1000, 3001])
@pytest.mark.parametrize("count", [16, 48])
def test_videoscores_frames(total: int, count: int) -> None:
    places = at_most(total, count)
    if total <= count:
        assert places == list(range(total))
    else:
        assert places == [i * total // count for i in range(count)]


@pytest.mark.parametrize(
    ("total", "fps", "expected"),
    [
        (48, 8.0, 12),  # six seconds, two frames each
        (41, 8.0, 10),  # 10.25 -> the nearest multiple of two
        (24, 24.0, 4),  # two are too few
        (3, 24.0, 2),  # there are no four
        (9000, 10.0, 768),
    ],
)
def test_videoaligns_number_of_frames(total: int, fps: float, expected: int) -> None:
    places = at_rate("r", 0, Clip(np.zeros((total, 1, 1, 3), np.uint8), fps), 2.0)
    assert len(places) == expected and places[0] == 0 and places[-1] == total - 1


@pytest.mark.parametrize("reduction", ["mean", "min", "last"])
def test_frames_are_reduced_as_asked(reduction: Any) -> None:
    reward = FrameMean(Brightness(), 3, reduction)
    score = reward.score([grey(9, 50, 1, 2, 30, 2, 3, 70, 200)], [""], [{"bonus": 10}])
    assert float(score[0]) == {"mean": 60.0, "min": 40.0, "last": 210.0}[reduction]  # of frames 1, 4, 7 or 8
    assert reduction in reward.info.version and reward.info.needs_metadata


def test_a_frame_that_cannot_be_read_makes_the_video_nan() -> None:
    scores = FrameMean(Brightness(), 3, "min").score([grey(5, 0, 5), grey(5, 6, 7)], ["", ""])
    assert torch.isnan(scores[0]) and scores[1] == 5


def test_what_frame_mean_says_of_the_wrong_reward() -> None:
    for options, message in [
        ({}, "takes an inner reward"),
        ({"reward": {"oracle": {}, "clip": {}}}, "give one inner reward"),
        ({"reward": {"oracle": {"outputs": "all"}}}, "reward 'frame_mean': reward 'oracle': unknown option 'outputs'"),
        ({"reward": "orcale"}, "did you mean"),
        ({"reward": "flicker"}, "takes a reward of images, 'flicker' is of video"),
        ({"reward": "oracle", "frames": 0}, "frames"),
        ({"reward": {"pickscore": {"path": 3}}}, "pickscore.path must be text, got 3"),
        ({"reward": {"pickscore": {"path": PICKSCORE, "output": "prob"}}}, "by what is asked together with it"),
    ]:
        with pytest.raises(ConfigError, match=message):
            rewards.load("frame_mean", **options)
    with pytest.raises(ConfigError, match="path 'here'"):
        rewards.load("frame_mean", "here", reward="oracle")
    with pytest.raises(DataError, match="frames of item 0: reward 'oracle', item 0: the oracle reads pictures"):
        rewards.load("frame_mean", reward="oracle").score([grey(1)], ["a small red circle"])


def test_options_of_the_frame_mean_are_the_inner_rewards_too() -> None:
    inner = {"pickscore": {"path": PICKSCORE, "micro_batch": 2}}
    found: Any = rewards.load("frame_mean", reward=inner, precision="bfloat16", micro_batch=5)
    assert "bfloat16" in found.info.version and found.inner.micro_batch == 2
    assert rewards.load("frame_mean", reward="oracle", device="cpu").info.media == "video"


def test_a_differentiable_frame_mean_reads_videos_only() -> None:
    reward: Any = rewards.load("frame_mean", reward={"pickscore": {"path": PICKSCORE}})
    with pytest.raises(ShapeError, match=r"\(N, F, 3, H, W\)"):
        reward.score_tensors(torch.zeros(2, 3, 64, 64), ["a", "b"])
    assert not hasattr(rewards.load("frame_mean", reward="oracle"), "score_tensors")

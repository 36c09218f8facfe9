"""Several rewards as one reward, and a reward whose gaps were calibrated."""

from __future__ import annotations

import doctest
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_cases import pictures, sentences

from diffpref import rewards
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.ranking import calibrate
from diffpref.rewards import ensemble
from diffpref.rewards.ensemble import Ensemble, Member, fit_members

BUNDLED = [{name: {"path": f"bundled:shapes-{name}"}} for name in ("pickscore", "clip")]


class Mean:
    """Scores a picture by its mean."""

    def __init__(self, sign: float = 1.0, **info: Any) -> None:
        told = RewardInfo(name="mean", version="1", licence="none", range=(0.0, 255.0), needs_prompt=False)
        self.sign, self.info = sign, replace(told, **info)

    def score(
        self, media: Sequence[Any], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> torch.Tensor:
        return torch.tensor([self.sign * float(np.asarray(item, dtype=float).mean()) for item in media])


def test_the_example_runs() -> None:
    result = doctest.testmod(ensemble)
    assert result.attempted == 1 and result.failed == 0


def test_the_sum_is_of_members_in_their_units() -> None:
    media, prompts = pictures(4), sentences(4)
    own = [
        rewards.load(name, f"bundled:shapes-{name}").score(media, prompts).double() for name in ("pickscore", "clip")
    ]
    members = [
        {"pickscore": {"path": "bundled:shapes-pickscore", "weight": 2.0, "mean": 3.0, "std": 4.0}},
        {"clip": {"path": "bundled:shapes-clip", "output": "clip_score", "mean": "1e1"}},
    ]
    reward: Any = rewards.load("ensemble", members=members)
    expected = 2 * (own[0] - 3) / 4 + 100 * own[1] - 10
    assert torch.allclose(reward.score(media, prompts).double(), expected, rtol=1e-5)
    assert reward.info.aspects == ("pickscore", "clip")
    assert torch.allclose(reward.score_aspects(media, prompts)["pickscore"].double(), own[0])
    assert reward.info.licence == "Apache-2.0" and reward.info.pair_scale is None


def test_its_version_is_of_all_that_its_numbers_follow_from() -> None:
    def version(*members: Member) -> str:
        return Ensemble(members).info.version

    base = Member("a", Mean(), 1.0, 0.0, 2.0)
    others = [
        replace(base, weight=2.0),
        replace(base, mean=1.0),
        replace(base, std=3.0),
        replace(base, name="b"),
        replace(base, reward=Mean(version="2")),
        replace(base, reward=Mean(preprocessing="cut")),
    ]
    assert version(base) == version(replace(base, reward=Mean(licence="other")))
    assert len({version(base), *map(version, others), version(base, Member("b", Mean()))}) == 8
    assert version(Member("a", Mean())) != version(base)


def test_it_says_of_itself_what_follows_from_its_members() -> None:
    members = (
        Member("a", Mean(needs_prompt=True, licence="A"), 2.0, 5.0, 10.0),
        Member("b", Mean(needs_metadata=True, licence="B"), 0.5),
        Member("c", Mean(range=(-math.inf, math.inf)), 0.0),
    )
    info = Ensemble(members).info
    assert info.range == (pytest.approx(-1.0), pytest.approx(50.0 + 127.5))
    assert info.needs_prompt and info.needs_metadata and not info.differentiable and info.licence == "A; B; none"


def test_a_member_that_gives_no_number_gives_the_sum_none() -> None:
    class Silent(Mean):
        def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
            return torch.tensor([math.nan, *[1.0] * (len(media) - 1)])

    scores = Ensemble([Member("a", Mean()), Member("b", Silent())]).score(pictures(3), sentences(3))
    assert torch.isnan(scores).tolist() == [True, False, False]


def test_disagreement_is_the_spread_of_members_in_one_unit() -> None:
    media, prompts = pictures(3), sentences(3)
    mean = Mean().score(media, prompts).double()
    both = [Member("a", Mean(), 1.0, float(mean.mean()), 2.0), Member("b", Mean(-1.0), 1.0, -float(mean.mean()), 2.0)]
    expected = ((mean - mean.mean()) / 2).abs()
    assert torch.allclose(Ensemble(both).disagreement(media, prompts).double(), expected, atol=1e-5)
    assert Ensemble([both[0], replace(both[0], name="c")]).disagreement(media, prompts).abs().max() == 0
    with pytest.raises(ConfigError, match="member 'c' has no mean and std"):
        Ensemble([both[0], Member("c", Mean())]).disagreement(media, prompts)


def test_units_are_fitted_on_scores_so_that_no_member_outweighs_another() -> None:
    media, prompts = pictures(12), sentences(12)
    scores = rewards.load("ensemble", members=BUNDLED).score_aspects(media, prompts)  # type: ignore[attr-defined]
    told = {name: [*values.tolist(), math.nan] for name, values in scores.items()}
    fitted = fit_members([{"pickscore": {**BUNDLED[0]["pickscore"], "weight": 3.0}}, BUNDLED[1]], told)
    reward: Any = rewards.load("ensemble", members=fitted)
    parts = [m.standardised(torch.tensor(told[m.name][:12], dtype=torch.float64)) for m in reward.members]
    assert all(abs(float(p.mean())) < 1e-9 and float(p.std(correction=0)) == pytest.approx(1) for p in parts)
    assert [member.weight for member in reward.members] == [3.0, 1.0]
    with pytest.raises(ConfigError, match="'clip' has 1 different finite scores"):
        fit_members(["clip"], {"clip": [1.0, 1.0, math.nan]})


def test_the_oracle_stands_beside_rewards_of_clips_and_beside_those_of_pictures() -> None:
    infos = {other: rewards.load("ensemble", members=["oracle", other]).info for other in ("motion", "jpeg")}
    assert {name: (info.media, info.also) for name, info in infos.items()} == {
        "motion": ("video", ()),
        "jpeg": ("image", ()),
    }
    alone = rewards.load("ensemble", members=["oracle"]).info
    assert alone.takes("image") and alone.takes("video")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either members or the path"),
        ({"members": []}, "name at least one reward"),
        ({"members": ["oracle", {"oracle": {"output": "all"}}]}, "'oracle' is named twice"),
        ({"members": ["oracle", "words"]}, "same kind of media, got oracle image, words text"),
        ({"members": [{"oracle": {"weight": 0}}]}, "no member has a weight above 0"),
        ({"members": [{"oracle": {"weight": -1}}]}, r"members\[0\]\.weight: must be >= 0"),
        ({"members": [{"oracle": {"std": 0}}]}, r"members\[0\]\.std: must be > 0"),
        ({"members": ["orcale"]}, "unknown reward 'orcale'; did you mean 'oracle'"),
        ({"members": [{"oracle": {"outputs": "all"}}]}, "unknown option 'outputs'; did you mean 'output'"),
        ({"members": [["oracle"]]}, r"members\[0\]"),
        ({"members": [{"clip": {"path": 3}}]}, r"members\[0\]: path must be text"),
        ({"members": ["oracle"], "mode": "zscore"}, r"set data.score: \[NAME, NAME\] and data.combine: zscore"),
        ({"members": [{"pickscore": {"path": "bundled:shapes-pickscore", "output": "prob"}}]}, "asked together"),
    ],
)
def test_mistakes_are_told_in_a_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rewards.load("ensemble", **options)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; expected a YAML file with members") as said:
        rewards.load("ensemble", str(tmp_path))
    assert f"{tmp_path} is a folder" in str(said.value) and "{ensemble: {members: [" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_file_that_holds_no_members_is_told(tmp_path: Path) -> None:
    path = tmp_path / "members.yaml"
    path.write_text("member: [oracle]")
    with pytest.raises(ConfigError, match="expected one key, members"):
        rewards.load("ensemble", str(path))
    path.write_text("members: [oracle]")
    assert rewards.load("ensemble", str(path)).info.aspects == ("oracle",)
    with pytest.raises(ConfigError, match="either members or the path"):
        rewards.load("ensemble", str(path), members=["oracle"])


def test_it_is_cached_as_any_reward(tmp_path: Path) -> None:
    reward: Any = rewards.cached(rewards.load("ensemble", members=BUNDLED), tmp_path)
    first = reward.score(pictures(3), sentences(3))
    again: Any = rewards.cached(rewards.load("ensemble", members=BUNDLED), tmp_path)
    assert torch.equal(again.score(pictures(3), sentences(3)), first) and again.asked == 0
    assert tuple(again.score_aspects(pictures(3), sentences(3))) == ("pickscore", "clip") and again.asked == 3


# ---------------------------------------------------------------- calibration


def test_a_calibrated_reward_scores_alike_and_is_a_judge_by_what_was_measured(tmp_path: Path) -> None:
    plain: Any = rewards.load("pickscore", "bundled:shapes-pickscore")
    pairs = [(0.0, 1.0), (2.0, 0.0), (1.0, 0.5), (0.0, 3.0), (2.0, 1.0), (1.0, 3.0)]
    labels = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    found = calibrate("pickscore", plain.info.version, pairs, labels, list("abcdef"))
    found.save(tmp_path / "c.json")
    reward: Any = rewards.load("pickscore", "bundled:shapes-pickscore", calibration=str(tmp_path / "c.json"))
    assert reward.info == replace(plain.info, pair_scale=found.scale) != plain.info
    assert torch.equal(reward.score(pictures(2), sentences(2)), plain.score(pictures(2), sentences(2)))
    assert reward.score_tensors(torch.rand(1, 3, 64, 64), ["p"]).shape == (1,) and not hasattr(reward, "compare")
    wins = rewards.preference_probability(reward.info, torch.tensor([1.0]), torch.tensor([0.0]))
    assert wins.item() == pytest.approx(found.probability(1.0, 0.0))
    with pytest.raises(ConfigError, match=r"calibration is of pickscore@.*, and this is oracle@2\+facts; calibrate"):
        rewards.load("oracle", calibration=str(tmp_path / "c.json"))
    with pytest.raises(DataError, match="no such calibration"):
        rewards.load("oracle", calibration=str(tmp_path / "nowhere.json"))
    both: Any = rewards.load("ensemble", members=[{"pickscore": {"path": "bundled:shapes-pickscore"}}])
    assert rewards.calibrated(both, replace(found, version=both.info.version)).info.aspects == ("pickscore",)

"""Candidates of families that make videos: clips as files, keyed as pictures are, scored by rewards of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpref import rewards
from diffpref.config import Model
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import read_store
from diffpref.data.clips import read_clip
from diffpref.generation import GenerationPlan, GenerationRecipe, generate, score_store
from diffpref.loops.opening import fingerprint, make_sampler, sampler_settings
from diffpref.models import registry
from diffpref.shapes.motion import moving_captions

PROMPTS = tuple(str(caption) for caption in moving_captions("seen")[:3])


def recipe(**changes: Any) -> GenerationRecipe:
    told = {"num_inference_steps": 1, "guidance_scales": [1.0, 2.0], "batch_size": 2, "resolution": 32, **changes}
    return GenerationRecipe(output="x", model=Model(family="unet3d", path="tiny"), prompts=list(PROMPTS), **told)


def plan_of(family: Any, told: GenerationRecipe, unit_size: int = 2) -> GenerationPlan:
    settings = sampler_settings(told, family)
    return GenerationPlan(PROMPTS, 2, 0, settings, generator=fingerprint(family, told.model), unit_size=unit_size)


@pytest.fixture(scope="module")
def family() -> Any:
    return registry.get("unet3d").tiny()


def draw(family: Any, plan: GenerationPlan, folder: Path, **options: Any) -> Any:
    samplers = {one: make_sampler(family, one, "fp32") for one in plan.settings}
    return generate(plan, samplers, folder, **options)


def test_clips_are_a_function_of_their_keys_and_are_scored_as_they_were_drawn(family: Any, tmp_path: Path) -> None:
    scorers = {name: rewards.load(name) for name in ("oracle", "motion", "flicker")}
    told = recipe(num_frames=4, fps=12.5)
    store = draw(family, plan_of(family, told), tmp_path / "a", scorers=scorers)
    other = draw(family, plan_of(family, told, unit_size=1), tmp_path / "b")
    sampler = make_sampler(family, sampler_settings(told, family)[1], "fp32")
    for prompt, record, again in zip(PROMPTS, store, other, strict=True):
        clips = [read_clip(candidate) for candidate in record.candidates]
        assert [c.bytes for c in record.candidates] == [c.bytes for c in again.candidates]
        assert all(clip.frames.shape == (4, 32, 32, 3) and clip.fps == 12.5 for clip in clips)
        (alone,) = sampler([prompt], [record.candidates[1].seed or 0])
        assert np.array_equal(alone.frames, clips[1].frames)
        for candidate, clip in zip(record.candidates, clips, strict=True):
            assert {s.name: s.value for s in candidate.scores} == {
                name: scorer.score([clip], [prompt]).item() for name, scorer in scorers.items()
            }
    assert "4 frames" in str(store[0].candidates[0].generator)

    framed = {"frame_mean": rewards.load("frame_mean", reward={"jpeg": {}}, frames=2)}
    scored = score_store(read_store(tmp_path / "b"), framed, tmp_path / "scored")
    clip = read_clip(scored[0].candidates[0])
    jpeg = rewards.load("jpeg").score([clip.frames[1], clip.frames[3]], ["", ""])  # the middles of two halves
    assert scored[0].candidates[0].scores[0].value == jpeg.mean().item()


def test_a_reward_of_pictures_says_how_to_ask_it_about_clips(family: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'jpeg' scores images, item 0 is a video; score its frames with {frame_mean"):
        draw(family, plan_of(family, recipe()), tmp_path, scorers={"jpeg": rewards.load("jpeg")})


def test_frames_are_the_models_own_and_no_more_than_it_takes(family: Any) -> None:
    (one, _) = sampler_settings(recipe(), family)
    assert (one.num_frames, one.fps, one.resolution) == (3, 8.0, 32)
    with pytest.raises(ConfigError, match="num_frames: 'animatediff' from tiny takes clips of 1 to 8 frames, got 9"):
        sampler_settings(recipe(num_frames=9), registry.get("animatediff").tiny())
    with pytest.raises(ConfigError, match="num_frames: 'sd' makes images, which have none; leave it out"):
        sampler_settings(recipe(num_frames=9), registry.get("sd").tiny())

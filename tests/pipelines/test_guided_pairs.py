"""Guided pairs: one strength and two noises a pair, as the sampler of `sampling` makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_cases import PROMPTS, generators, noise_pictures

from diffpref.core.contracts import Clip
from diffpref.core.errors import ConfigError
from diffpref.models import registry as families
from diffpref.models.roles import NetworkRole
from diffpref.pipelines import GuidedPairsPipeline
from diffpref.sampling import SamplerSettings, SdeditSampler

CLIPS = noise_pictures(2, 3, 64, 64, 3)
FAST: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 2.0}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(params=["unet3d", "animatediff", "animatediff_sdxl"], scope="module")
def family(request: Any) -> Any:
    return families.get(request.param).tiny()


@pytest.fixture
def pipe(family: Any) -> Any:
    made = GuidedPairsPipeline.from_pipe(family.pipeline())
    made.set_progress_bar_config(disable=True)
    return made


def test_a_pair_is_what_the_sampler_draws_from_the_same_two_seeds(pipe: Any, family: Any) -> None:
    """A generator that has drawn its first noise goes on to the second; here each member has its own seed."""
    pixels = (CLIPS[:1] * 255).round().astype(np.uint8)
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=2.0, num_frames=3)
    draw = SdeditSampler(family, NetworkRole(family, family.network), settings, "dense_dpo")
    (first,) = draw(list(pixels), [PROMPTS[0]], [5], [0.7])
    pair = pipe(pixels, PROMPTS[0], strength=0.7, generator=torch.Generator().manual_seed(5), **FAST).frames[0]
    assert pair.shape == (2, 3, 64, 64, 3)
    assert np.abs(pair[0] * 255 - first.frames).max() <= 0.51
    assert np.abs(pair[1] - pair[0]).max() > 0.1


def test_strengths_are_drawn_from_their_range_one_a_pair(pipe: Any) -> None:
    found = pipe(CLIPS, PROMPTS[0], strength=(0.5, 0.9), num_pairs_per_prompt=3, generator=generators(6), **FAST)
    assert found.frames.shape == (6, 2, 3, 64, 64, 3)
    assert len(set(found.strengths)) == 6 and all(0.5 <= one <= 0.9 for one in found.strengths)
    fixed = pipe(CLIPS, PROMPTS[0], strength=0.5, generator=generators(2), **FAST)
    assert fixed.strengths == [0.5, 0.5] and pipe.num_timesteps == 2


def test_several_pairs_of_a_clip_are_those_of_their_generators(pipe: Any) -> None:
    several = pipe(CLIPS, list(PROMPTS[:2]), num_pairs_per_prompt=2, generator=generators(4), **FAST)
    alone = pipe(CLIPS[1], PROMPTS[1], generator=generators(4)[2], **FAST)
    assert alone.strengths == several.strengths[2:3]
    assert np.abs(alone.frames[0] - several.frames[2]).max() < 1e-4
    assert np.abs(several.frames[3] - several.frames[2]).max() > 0.1


def test_the_less_noise_the_nearer_to_the_clip_and_to_each_other(pipe: Any) -> None:
    def distance(strength: float) -> tuple[float, float]:
        how = {"num_inference_steps": 20, "guidance_scale": 1.0, "generator": torch.Generator().manual_seed(1)}
        first, second = pipe(CLIPS[:1], PROMPTS[0], strength=strength, output_type="latent", **how).frames[0]
        (whole,) = pipe(CLIPS[:1], PROMPTS[0], strength=0.05, output_type="latent", **how).frames[:, 0]
        return float((first - second).square().mean()), float((first - whole).square().mean())

    near, far = distance(0.1), distance(0.9)
    assert near[0] < far[0] and near[1] < far[1]


def test_clips_come_in_every_form(pipe: Any) -> None:
    def drawn(video: Any, **how: Any) -> np.ndarray:
        given = {"strength": 0.5, "generator": torch.Generator().manual_seed(2), **FAST, **how}
        return pipe(video, PROMPTS[0], **given).frames

    pixels = (CLIPS[0] * 255).round().astype(np.uint8)
    expected = drawn(pixels.astype(np.float32)[None] / 255)
    frames = [Image.fromarray(one) for one in pixels]
    for same in (pixels, Clip(pixels, fps=8.0), frames, [frames], torch.from_numpy(pixels).movedim(-1, 1) / 255):
        assert np.abs(drawn(same) - expected).max() < 1e-4
    assert drawn(frames, height=32, width=32).shape == (1, 2, 3, 32, 32, 3)
    pair = drawn(frames, output_type="pil")[0]
    assert [len(clip) for clip in pair] == [3, 3] and pair[0][0].size == (64, 64)


MISTAKES: dict[str, dict[str, Any]] = {
    r"strength: must be a number or a range in \(0, 1\], got \(0\.8, 0\.6\)": {"strength": (0.8, 0.6)},
    r"strength: must be a number or a range in \(0, 1\], got 0": {"strength": 0},
    r"strength: 0\.05 leaves none of 4 steps": {"strength": 0.05},
    r"num_pairs_per_prompt: must be at least 1, got 0": {"num_pairs_per_prompt": 0},
    r"squares of a multiple of 8 pixels are needed, got 64 x 48": {"video": CLIPS[:, :, :, :48]},
    r"video: cannot be read as clips": {"video": "a.mp4"},
    r"beginning: unknown 'dense'": {"beginning": "dense"},
    r"solver: must be one of ddim, dpmpp_2m, got 'euler'": {"solver": "euler"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_in_a_line(pipe: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        pipe(**{"video": CLIPS, "prompt": "a", **FAST, **MISTAKES[message]})
    assert "\n" not in str(caught.value)


def test_more_frames_than_the_denoiser_takes_are_refused() -> None:
    pipe: Any = GuidedPairsPipeline.from_pipe(families.get("animatediff").tiny().pipeline())
    with pytest.raises(ConfigError, match="takes clips of 1 to 8 frames, got 9"):
        pipe(noise_pictures(1, 9, 64, 64, 3), "a", **FAST)
    pictures = families.get("sd").tiny().pipeline()
    parts = {name: pictures.components[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler", "unet")}
    with pytest.raises(
        ConfigError, match="a UNet2DConditionModel of this kind is no denoiser of unet3d, animatediff, animatediff_sdxl"
    ):
        GuidedPairsPipeline(**parts)(CLIPS, "a")

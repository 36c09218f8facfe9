"""Inversion as a pipeline is that of `sampling`, and its noise gives stock pipelines the picture again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from pipeline_cases import PROMPTS, generators, noise_pictures

from diffpref.core.errors import ConfigError
from diffpref.models import registry as families
from diffpref.models.roles import NetworkRole
from diffpref.pipelines import InversionPipeline
from diffpref.sampling import GuidedRole, InversionSettings, invert, sampling_path
from diffpref.sampling import SamplerSettings as Settings

KINDS = ("sd", "sdxl", "sd3")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(params=KINDS, scope="module")
def family(request: Any) -> Any:
    return families.get(request.param).tiny()


@pytest.fixture
def pipe(family: Any) -> Any:
    made = InversionPipeline.from_pipe(family.pipeline())
    made.set_progress_bar_config(disable=True)
    return made


PICTURES = noise_pictures(2, 64, 64, 3)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("renoise_steps", [0, 2])
def test_the_latents_are_those_that_sampling_inverts_to(
    pipe: Any, family: Any, guidance: float, renoise_steps: int
) -> None:
    found = pipe(
        PICTURES,
        list(PROMPTS[:2]),
        num_inference_steps=5,
        guidance_scale=guidance,
        negative_prompt="ugly",
        strength=0.8,
        renoise_steps=renoise_steps,
        reconstruct=False,
    )
    assert found.images is None and found.begin == 1
    told, without = family.encode_prompt(PROMPTS[:2], 64), family.encode_prompt(["ugly"], 64)
    role: Any = NetworkRole(family, family.network)
    if guidance > 1:
        role = GuidedRole(role, without, guidance)
    clean = family.encode_media(torch.from_numpy(PICTURES).movedim(-1, 1) * 2 - 1).mean
    schedule = family.schedule_at(64)
    top = sampling_path(schedule, Settings(num_inference_steps=5))[0][1].expand(2)
    settings = InversionSettings(5, landing="exact", renoise_steps=renoise_steps, spacing=None)
    again = invert(role, schedule, clean, top, told, settings)
    torch.testing.assert_close(found.latents, again.noisy, rtol=0, atol=1e-5)


def test_a_stock_pipeline_makes_the_same_pictures_of_the_latents(pipe: Any, family: Any) -> None:
    how = {"num_inference_steps": 5, "guidance_scale": 2.5}
    found = pipe(PICTURES, list(PROMPTS[:2]), output_type="np", **how)
    stock = family.pipeline()
    if family.name != "sd3":
        stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    drawn = stock(list(PROMPTS[:2]), latents=found.latents, height=64, width=64, output_type="np", **how).images
    assert np.abs(drawn - found.images).max() < 1e-3


def test_a_callback_counts_the_steps_up_and_then_those_down(pipe: Any) -> None:
    seen: list[float] = []

    def watch(one: Any, step: int, timestep: Any, told: Any) -> Any:
        seen.append(float(timestep))
        return told

    pipe(PICTURES, num_inference_steps=4, strength=0.5, callback_on_step_end=watch)
    assert pipe.num_timesteps == len(seen)
    top = seen.index(max(seen))
    assert seen[: top + 1] == sorted(seen[: top + 1]) and seen[top + 1 :] == sorted(seen[top + 1 :], reverse=True)
    assert len(seen) - top - 1 == 2 and seen[top] == seen[top + 1]
    pipe(PICTURES, num_inference_steps=4, reconstruct=False, callback_on_step_end=watch)
    assert pipe.num_timesteps < 8


def test_pictures_come_in_every_form(pipe: Any) -> None:
    def latents(image: Any, **how: Any) -> torch.Tensor:
        return pipe(image, num_inference_steps=1, reconstruct=False, **how).latents

    pixels = (PICTURES * 255).round().astype(np.uint8)
    expected = latents(pixels.astype(np.float32) / 255)
    for same in (
        pixels,
        [Image.fromarray(one) for one in pixels],
        torch.from_numpy(pixels).movedim(-1, 1).float() / 255,
    ):
        torch.testing.assert_close(latents(same), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(latents(Image.fromarray(pixels[0])), expected[:1], rtol=0, atol=1e-4)
    assert latents(Image.fromarray(pixels[0]), height=32, width=32).shape == (1, 4, 4, 4)
    clean = torch.randn(1, 4, 8, 8)
    assert latents(clean, strength=1.0).shape == clean.shape


def test_eta_draws_from_the_generators() -> None:
    pipe: Any = InversionPipeline.from_pipe(families.get("sd").tiny().pipeline())
    pipe.set_progress_bar_config(disable=True)

    def latents(**how: Any) -> torch.Tensor:
        return pipe(PICTURES, num_inference_steps=3, reconstruct=False, **how).latents

    together, plain = latents(eta=0.3, generator=generators(2)), latents()
    assert not torch.allclose(together, plain)
    alone = pipe(PICTURES[1:], num_inference_steps=3, reconstruct=False, eta=0.3, generator=generators(2)[1]).latents
    torch.testing.assert_close(alone, together[1:], rtol=0, atol=1e-4)


MISTAKES: dict[str, dict[str, Any]] = {
    r"squares of a multiple of 8 pixels are needed, got 64 x 48; crop": {"image": PICTURES[:, :, :48]},
    r"image: cannot be read as pictures": {"image": "a.png"},
    r"strength: must be > 0 and <= 1, got 2": {"strength": 2.0},
    r"landing: must be one of official, exact, snap, got 'soft'": {"landing": "soft"},
    r"renoise_weights: must be 2 numbers that sum to 1, got \[1\]": {"renoise_weights": [1]},
    r"prompt: must be a text, or a list of 2": {"prompt": ["a"] * 3},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_in_a_line(message: str) -> None:
    pipe: Any = InversionPipeline.from_pipe(families.get("sd").tiny().pipeline())
    with pytest.raises(ConfigError, match=message) as caught:
        pipe(**{"image": PICTURES, "num_inference_steps": 2, **MISTAKES[message]})
    assert "\n" not in str(caught.value)


def test_missing_components_are_named() -> None:
    parts = families.get("sdxl").tiny().pipeline().components
    needed = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    with pytest.raises(ConfigError, match="the pipeline has no text_encoder_2, which 'sdxl' needs"):
        InversionPipeline(**needed, unet=parts["unet"])(PICTURES)
    with pytest.raises(ConfigError, match="the pipeline has no denoiser; give it a unet or a transformer"):
        InversionPipeline(**needed)(PICTURES)
    video = families.get("unet3d").tiny().network
    with pytest.raises(ConfigError, match="a UNet3DConditionModel of this kind is no denoiser of sd, sdxl, sd3"):
        InversionPipeline(**needed, unet=video)(PICTURES)

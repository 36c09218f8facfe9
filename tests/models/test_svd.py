"""Image to video: what a clip's picture becomes, the network on EDM's levels, and the stock pipeline's clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as stock
from PIL import Image

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.data import image_tensor
from diffpref.models import load_family, registry
from diffpref.models.families.svd import StableVideoDiffusion
from diffpref.models.picture_encoder import resized_smoothly
from diffpref.models.roles import NetworkRole
from diffpref.sampling import Sampler, SamplerSettings

SEEDS = [3, 2**40 + 1]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def family() -> Any:
    return registry.get("svd").tiny()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in SEEDS]


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([image_tensor(picture, 64).pixels for picture in pictures])


def pipeline(family: StableVideoDiffusion) -> Any:
    made = family.pipeline()
    made.set_progress_bar_config(disable=True)
    return made


def draw(family: StableVideoDiffusion, pictures: list[Image.Image], guidance: float, output: str) -> Any:
    """The stock pipeline's clips or latents (N, F, C, h, w)."""
    return pipeline(family)(
        pictures,
        height=64,
        width=64,
        num_inference_steps=4,
        max_guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type=output,
    ).frames


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (300, 420), (576, 1024)])
def test_pictures_shrink_as_in_the_stock_pipeline(shape: tuple[int, int]) -> None:
    images = torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = stock._resize_with_antialiasing(images, (224, 224))
    torch.testing.assert_close(resized_smoothly(images, 224), wanted, rtol=0, atol=2e-6)


def test_conditioning_is_the_stock_pipelines(family: Any, pictures: list[Image.Image]) -> None:
    stocked, count = pipeline(family), len(pictures)
    noise = torch.randn((count, 3, 64, 64), generator=torch.Generator().manual_seed(5))
    ours = (
        family.encode_prompt(["", "not read"], 64).replace(family.encode_opening(pixels(pictures), 64, noise)).tensors
    )
    with torch.no_grad():
        embeds = stocked._encode_image(pictures, "cpu", 1, True)
        noised = stocked.video_processor.preprocess(pictures, height=64, width=64) + 0.02 * noise
        latents = stocked._encode_vae_image(noised, "cpu", 1, True)
    ids = stocked._get_add_time_ids(7 - 1, 127, 0.02, torch.float32, count, 1, True)
    torch.testing.assert_close(ours["image_embeds"], embeds[count:], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours["image_latents"], latents[count:], rtol=0, atol=1e-5)
    assert torch.equal(ours["added_time_ids"], ids[count:])
    none = family.unconditional(64).tensors
    for name, theirs in {"image_embeds": embeds, "image_latents": latents, "added_time_ids": ids}.items():
        assert torch.equal(none[name], theirs[:1]), name


def test_the_pictures_latents_are_not_scaled_and_clips_are(family: Any, tmp_path: Path) -> None:
    family.pipeline().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    other: Any = load_family("svd", str(tmp_path), parts=("vae", "text"))
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, second = (one.encode_opening(image, 64)["image_latents"] for one in (family, other))
    assert torch.equal(first, second)
    clip = image.unsqueeze(1).repeat(1, 3, 1, 1, 1)
    torch.testing.assert_close(other.encode_media(clip).mean / 0.5, family.encode_media(clip).mean / 0.18215)


def test_the_noise_of_a_picture_is_its_own(family: Any, pictures: list[Image.Image]) -> None:
    images = pixels(pictures)
    both, swapped = family.encode_opening(images, 64), family.encode_opening(images.flip(0), 64)
    for name, rows in both.items():
        assert torch.equal(rows, swapped[name].flip(0)), name
    still = family.encode_opening(images, 64, torch.zeros_like(images))
    assert torch.equal(still["image_embeds"], both["image_embeds"])
    moved = (still["image_latents"] - both["image_latents"]).abs().amax(dim=(1, 2, 3))
    assert (moved > 0).all() and (moved < 0.1).all() and moved[0] != moved[1]


def test_a_prediction_is_the_networks_in_the_stock_pipeline(family: Any, pictures: list[Image.Image]) -> None:
    asked: list[dict[str, Any]] = []
    stocked, forward = pipeline(family), family.network.forward
    scale = stocked.scheduler.scale_model_input

    def spy(sample: torch.Tensor, timestep: torch.Tensor, **told: Any) -> Any:
        found = forward(sample, timestep, **told)
        asked.append({"sample": sample, "level": level[-1], "told": told, "prediction": found[0]})
        return found

    def scaled(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        result = scale(sample, timestep)
        level.append(stocked.scheduler.sigmas[stocked.scheduler.step_index])
        return result

    level: list[torch.Tensor] = []
    family.network.forward, stocked.scheduler.scale_model_input = spy, scaled
    try:
        stocked(
            pictures[0],
            height=64,
            width=64,
            num_inference_steps=3,
            max_guidance_scale=1.0,
            generator=torch.Generator().manual_seed(SEEDS[0]),
            output_type="latent",
        )
    finally:
        del family.network.forward
    noise = family.opening_noise(64, torch.Generator().manual_seed(SEEDS[0])).unsqueeze(0)
    told = family.encode_prompt([""], 64).replace(family.encode_opening(pixels(pictures[:1]), 64, noise))
    assert len(asked) == 3
    for call in asked:
        given, beside = call["sample"].split(4, dim=2)
        torch.testing.assert_close(told.tensors["image_latents"], beside[:, 1], rtol=0, atol=1e-5)
        same = told.replace({"image_latents": beside[:, 0], "image_embeds": call["told"]["encoder_hidden_states"]})
        rows = {"noisy": given.transpose(1, 2), "timesteps": call["level"].view(1)}
        with torch.no_grad():
            ours = family.forward(family.network, rows, same)
        torch.testing.assert_close(ours, call["prediction"].transpose(1, 2), rtol=0, atol=1e-6)
        assert ours.shape == (1, 4, 3, 8, 8) == rows["noisy"].shape  # of eight channels the generated four


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_are_the_stock_pipelines(family: Any, pictures: list[Image.Image], guidance: float) -> None:
    from diffpref.sampling import sample_latents

    settings = SamplerSettings(num_inference_steps=4, guidance_scale=guidance, batch_size=2)
    ours = Sampler(family, NetworkRole(family, family.network), settings)
    with torch.no_grad():
        told = ours.conditioning(["", ""], SEEDS, pictures)
        latents = sample_latents(
            family, ours.role, ours.initial_latents(SEEDS), told, family.unconditional(64), settings
        )
    wanted = draw(family, pictures, guidance, "latent").transpose(1, 2)
    torch.testing.assert_close(latents, wanted, rtol=1e-5, atol=1e-5)


def test_clips_are_the_stock_pipelines_and_functions_of_picture_and_seed(
    family: Any, pictures: list[Image.Image]
) -> None:
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=3.0, batch_size=2)
    sampler = Sampler(family, NetworkRole(family, family.network), settings)
    clips: list[Any] = sampler(["", ""], SEEDS, pictures)
    wanted = draw(family, pictures, 3.0, "pil")
    for ours, theirs in zip(clips, wanted, strict=True):
        assert ours.frames.shape == (3, 64, 64, 3) and ours.fps == 7
        assert (
            np.abs(ours.frames.astype(int) - np.stack([np.asarray(frame) for frame in theirs]).astype(int)).max() <= 1
        )
    alone: Any
    other: Any
    (alone,) = sampler(["whatever"], SEEDS[1:], pictures[1:])
    assert np.array_equal(alone.frames, clips[1].frames)
    (other,) = sampler([""], SEEDS[1:], pictures[:1])
    assert not np.array_equal(other.frames, clips[1].frames)


def test_noising_and_target_are_the_printed_numbers(family: Any) -> None:
    def row(value: float) -> torch.Tensor:
        return torch.full((1, 1, 1, 1, 1), value, dtype=torch.float64)

    level = torch.tensor([2.0], dtype=torch.float64)
    assert family.add_noise(row(1), row(0.5), level).item() == pytest.approx(0.8944271910, abs=5e-11)
    assert family.target(row(1), row(0.5), level).item() == pytest.approx(-0.6708203932, abs=5e-11)


def test_mistakes_are_told_in_one_line(family: Any, pictures: list[Image.Image]) -> None:
    sampler = Sampler(family, NetworkRole(family, family.network), SamplerSettings(batch_size=1))
    with pytest.raises(ConfigError, match=r"^'svd' animates pictures: give openings, a picture for each prompt$"):
        sampler(["a red circle"], [0])
    with pytest.raises(ConfigError, match=r"^openings: one for each of 1 prompts, got 2$"):
        sampler(["a red circle"], [0], pictures)
    image: Any = registry.get("sd").tiny()
    with pytest.raises(ConfigError, match=r"^openings: 'sd' begins with no picture; leave them out, or take 'svd'$"):
        Sampler(image, NetworkRole(image, image.network), SamplerSettings())(["a"], [0], pictures[:1])
    with pytest.raises(ShapeError, match=r"begins with pictures \(N, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        family.encode_opening(torch.zeros(1, 3, 32, 32), 64)
    told = family.encode_prompt([""], 64)
    small = Conditioning({**told.tensors, "image_latents": torch.zeros(1, 4, 4, 4)})
    rows = {"noisy": torch.zeros(1, 4, 3, 8, 8), "timesteps": torch.tensor([1.0])}
    with pytest.raises(ShapeError, match=r"latents are \(8, 8\) and its picture's \(4, 4\); both must have one"):
        family.forward(family.network, rows, small)

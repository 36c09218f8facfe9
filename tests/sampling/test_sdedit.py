"""Partial re-noising is that of diffusers' image-to-image and video-to-video pipelines, and a function of its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, ShapeError
from diffpref.core.media import Clip
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole
from diffpref.sampling import (
    SamplerSettings,
    SdeditSampler,
    noised_to,
    sample_latents,
    sampling_path,
    sdedit_begin,
)
from diffpref.schedules import DiscreteSchedule, EdmSchedule, FlowSchedule

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {
    name: registry.get(name).tiny for name in ("sd", "sdxl", "sd3", "unet3d", "animatediff")
}
MAKERS["sd, v_prediction"] = lambda: registry.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]
STOCK = {
    "sd": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
    "unet3d": "VideoToVideoSDPipeline",
    "animatediff": "AnimateDiffVideoToVideoPipeline",
}
SOLVERS = {"ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
PROMPT, FRAMES = "a red circle", 3

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


MAKERS["svd"] = registry.get("svd").tiny


@pytest.fixture(params=MAKERS, scope="module")
def family(request: Any) -> DenoiserFamily:
    return MAKERS[request.param]()


def stock(family: DenoiserFamily, clean: Tensor, seed: int, **how: Any) -> tuple[Tensor, Tensor, list[float]]:
    """Return the stock pipeline's latents, the noise that it drew, and the timesteps that it went through."""
    kind: Any = getattr(diffusers, STOCK[family.name])
    told = family.pipeline()
    own = {"requires_safety_checker": False} if family.name == "sd" else {}
    if family.name == "sdxl":
        own = {"force_zeros_for_empty_prompt": told.config.force_zeros_for_empty_prompt}
    pipeline = kind(**told.components, **own)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[float] = []

    def look(pipe: Any, step: int, timestep: Any, told: Any) -> Any:
        seen.append(float(timestep))
        return told

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    frames_first = clean.transpose(1, 2)
    options: dict[str, Any] = {"generator": generator(), "output_type": "latent", "callback_on_step_end": look, **how}
    noise = torch.randn(clean.shape, generator=generator())
    if family.name == "unet3d":  # draws its noise frame by frame
        noise = torch.randn(frames_first.shape[1:], generator=generator())[None].transpose(1, 2)
        options["callback"] = lambda step, timestep, latents: look(None, step, timestep, None)
        options["video"] = frames_first
        options.pop("callback_on_step_end")
    elif family.name == "animatediff":  # takes latents that are noisy already
        pipeline.scheduler.set_timesteps(how["num_inference_steps"])
        timesteps = pipeline.get_timesteps(
            how["num_inference_steps"], pipeline.scheduler.timesteps, how["strength"], "cpu"
        )[0]
        options["latents"] = pipeline.scheduler.add_noise(clean, noise, timesteps[:1])
        options |= {"height": 8 * clean.shape[-2], "width": 8 * clean.shape[-1]}
    else:
        options["image"] = clean
    drawn = pipeline(prompt=PROMPT, **options)
    return (drawn.frames if family.unit_dims else drawn.images), noise, seen


def ours(family: DenoiserFamily, clean: Tensor, noise: Tensor, settings: SamplerSettings, begin: int) -> Tensor:
    side = clean.shape[-1] * family.vae_factor()
    noisy = noised_to(family.schedule_at(side), settings, clean, noise, [begin])
    told, without = family.encode_prompt([PROMPT], side), family.unconditional(side)
    role = NetworkRole(family, family.network)
    return sample_latents(family, role, noisy, told, without, settings, begins=[begin])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps, strength", [(4, 0.5), (10, 0.65), (13, 0.3), (5, 1.0)])
def test_latents_and_timesteps_are_the_stock_pipelines(
    family: DenoiserFamily, solver: str, steps: int, strength: float
) -> None:
    if family.name not in STOCK:
        pytest.skip("diffusers has no pipeline of it that begins with a medium")
    if isinstance(family.schedule, DiscreteSchedule):
        family.scheduler_config = {**family.scheduler_config, "_class_name": SOLVERS[solver]}
        family.schedule = DiscreteSchedule.from_config(family.scheduler_config)
    elif solver == "dpmpp_2m":
        pytest.skip("a solver of chains")
    settings = SamplerSettings(num_inference_steps=steps, guidance_scale=3.0, solver=solver)  # type: ignore[arg-type]
    shape = family.latent_shape(64, FRAMES if family.unit_dims else None)
    clean = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    theirs, noise, seen = stock(family, clean, 7, num_inference_steps=steps, strength=strength, guidance_scale=3.0)
    begin = sdedit_begin(family.schedule, settings, strength)
    timesteps = sampling_path(family.schedule, settings)[0][begin:]
    told = timesteps * 1000 if isinstance(family.schedule, FlowSchedule) else timesteps
    assert seen == pytest.approx(told.tolist(), abs=1e-4)
    torch.testing.assert_close(ours(family, clean, noise, settings, begin), theirs, rtol=1e-5, atol=1e-5)


def sampler(family: DenoiserFamily, beginning: Any = "stock", **settings: Any) -> SdeditSampler:
    given = {"num_inference_steps": 5, "guidance_scale": 2.0, "batch_size": 4, **settings}
    return SdeditSampler(family, NetworkRole(family, family.network), SamplerSettings(**given), beginning)


def media(draw: SdeditSampler, count: int) -> list[np.ndarray]:
    """Return pictures, or clips of as many frames as are drawn; a longer list begins as a shorter one."""
    frames = draw.settings.num_frames
    shape = (*([] if frames is None else [frames]), draw.resolution, draw.resolution, 3)
    return [np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8) for row in range(count)]


def pixels(medium: Any) -> np.ndarray:
    return medium.frames if isinstance(medium, Clip) else medium


def conditioning(draw: SdeditSampler, prompts: list[str]) -> Any:
    openings = [medium[0] for medium in media(draw, len(prompts))] if draw.family.takes_opening else None
    return draw.plain.conditioning(prompts, list(range(len(prompts))), openings)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_result_does_not_depend_on_its_companions_nor_on_their_strengths(family: DenoiserFamily, solver: str) -> None:
    if solver == "dpmpp_2m" and not isinstance(family.schedule, DiscreteSchedule):
        pytest.skip("a solver of chains")
    draw = sampler(family, solver=solver)
    given = media(draw, 5)
    prompts, seeds, strengths = [f"{i} things" for i in range(5)], list(range(5)), [0.4, 1.0, 0.6, 0.8, 0.2]
    together = draw(given, prompts, seeds, strengths)
    backwards = draw(given[::-1], prompts[::-1], seeds[::-1], strengths[::-1])[::-1]
    for i in range(5):
        alone = pixels(*draw([given[i]], [prompts[i]], [seeds[i]], [strengths[i]]))
        assert alone.shape == given[i].shape and alone.dtype == np.uint8
        assert np.array_equal(alone, pixels(together[i])) and np.array_equal(alone, pixels(backwards[i])), i


def test_rows_that_begin_later_are_what_they_are_alone_to_the_last_bit(family: DenoiserFamily) -> None:
    """Pixels would forgive a difference in a latent's seventh digit."""
    settings = SamplerSettings(num_inference_steps=6, guidance_scale=2.0)
    if isinstance(family.schedule, DiscreteSchedule):
        settings = SamplerSettings(num_inference_steps=6, guidance_scale=2.0, solver="dpmpp_2m")
    draw = sampler(family)
    shape = family.latent_shape(64, FRAMES if family.unit_dims else None)
    noisy = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    told = conditioning(draw, ["a", "b"])

    def drawn(begins: list[int]) -> Tensor:
        return sample_latents(family, draw.role, noisy, told, draw.plain.unconditional, settings, begins=begins)

    mixed = drawn([0, 3])
    assert torch.equal(mixed[0], drawn([0, 0])[0]) and torch.equal(mixed[1], drawn([3, 3])[1])
    assert not torch.equal(mixed[1], drawn([2, 2])[1])


def test_the_less_noise_the_nearer_to_the_medium(family: DenoiserFamily) -> None:
    draw = sampler(family, num_inference_steps=20, guidance_scale=1.0)
    (medium,) = media(draw, 1)
    clean = family.encode_media(torch.from_numpy(medium[None]).movedim(-1, -3).float() / 127.5 - 1).mean
    noise = draw.plain.initial_latents([3])
    schedule = family.schedule_at(draw.resolution)
    away = []
    for strength in (0.1, 0.5, 0.9):
        begin = sdedit_begin(schedule, draw.settings, strength)
        away.append(float((noised_to(schedule, draw.settings, clean, noise, [begin]) - clean).square().mean()))
    assert away == sorted(away) and away[0] < 0.5 * away[-1]


def test_medium_prompt_seed_and_strength_all_matter(family: DenoiserFamily) -> None:
    draw = sampler(family, batch_size=1, guidance_scale=30.0)
    one, other = media(draw, 2)
    start = pixels(*draw([one], ["a"], [0], [0.6]))
    changes: list[Any] = [(other, "a", 0, 0.6), (one, "a", 1, 0.6), (one, "a", 0, 0.8)]
    if not family.takes_opening:  # which is told no text
        changes.append((one, "b", 0, 0.6))
    for changed in changes:
        again = pixels(*draw(*[[value] for value in changed]))
        assert not np.array_equal(again, start), changed[1:]


def test_media_are_cut_to_squares_and_clips_keep_their_speed(family: DenoiserFamily) -> None:
    draw = sampler(family, batch_size=1, resolution=64)
    (medium,) = media(draw, 1)
    grey = [(0, 0)] * (medium.ndim - 2) + [(5, 5), (0, 0)]
    wide: Any = np.pad(medium, grey, constant_values=128)  # the middle is cut out again
    start = draw([medium], ["a"], [0], [0.6])[0]
    if draw.settings.num_frames is None:
        assert np.array_equal(draw([wide], ["a"], [0], [0.6])[0], start)
        return
    assert start.fps == draw.settings.fps
    (again,) = draw([Clip(wide, 12.5)], ["a"], [0], [0.6])
    assert again.fps == 12.5 and (family.takes_opening or np.array_equal(again.frames, start.frames))


def begins(schedule: Any, steps: int, strengths: list[float], beginning: Any = "stock") -> list[int]:
    settings = SamplerSettings(num_inference_steps=steps)
    return [steps - sdedit_begin(schedule, settings, strength, beginning) for strength in strengths]


def test_dense_dpo_takes_the_steps_that_its_specification_counts() -> None:
    chain, flow = MAKERS["sd"]().schedule, FlowSchedule(shift=1.0)
    for schedule in (chain, flow):
        assert begins(schedule, 40, [0.65, 0.75, 0.8, 1.0], "dense_dpo") == [26, 30, 32, 40]
    assert begins(chain, 10, [0.65, 0.74, 0.05], "dense_dpo") == [7, 7, 1]  # halves up, not to even
    edm = EdmSchedule(sigma_min=0.002, sigma_max=700.0)
    assert begins(edm, 10, [0.65], "dense_dpo") == [7]


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.66])
@pytest.mark.parametrize("strength", [0.65, 0.75, 0.8])
def test_of_a_shifted_flow_dense_dpo_begins_at_the_first_level_that_is_not_above(shift: float, strength: float) -> None:
    schedule, settings = FlowSchedule(shift=shift), SamplerSettings(num_inference_steps=40)
    begin = sdedit_begin(schedule, settings, strength, "dense_dpo")
    levels = schedule.grid(40)
    assert levels[begin] <= strength < levels[begin - 1]
    clean, noise = torch.ones(1, 2), torch.full((1, 2), 3.0)
    level = float(levels[begin])
    mixed = noised_to(schedule, settings, clean, noise, [begin])
    torch.testing.assert_close(mixed, (1 - level) * clean + level * noise)


def test_the_stock_pipelines_round_down_on_chains_and_up_on_flows() -> None:
    chain, flow = MAKERS["sd"]().schedule, FlowSchedule(shift=3.0)
    assert begins(chain, 10, [0.69, 0.7, 1.0]) == [6, 7, 10]
    assert begins(flow, 10, [0.61, 0.7, 1.0]) == [7, 7, 10]


def test_mistakes_are_refused() -> None:
    family = MAKERS["sd"]()
    draw = sampler(family)
    given = media(draw, 1)
    with pytest.raises(ConfigError, match="strength: must be > 0 and <= 1, got 0"):
        draw(given, ["a"], [0], [0.0])
    with pytest.raises(ConfigError, match=r"strength: must be > 0 and <= 1, got 1\.5"):
        draw(given, ["a"], [0], [1.5])
    with pytest.raises(ConfigError, match="strength: must be > 0 and <= 1, got nan"):
        draw(given, ["a"], [0], [float("nan")])
    with pytest.raises(ConfigError, match=r"strength: 0\.1 leaves none of 5 steps; take a larger one, or more steps"):
        draw(given, ["a"], [0], [0.1])
    with pytest.raises(ConfigError, match=r"strength: 0\.001 leaves none of 5 steps"):
        sdedit_begin(FlowSchedule(shift=3.0), draw.settings, 0.001, "dense_dpo")
    with pytest.raises(ConfigError, match="beginning: unknown 'dense_dop'; did you mean 'dense_dpo'"):
        sampler(family, "dense_dop")(given, ["a"], [0], [0.5])
    with pytest.raises(ConfigError, match="got 1, 2, 1 and 1 of them"):
        draw(given, ["a", "b"], [0], [0.5])
    with pytest.raises(ShapeError, match=r"media: 'sd' is given pictures, got one of shape \(3, 64, 64, 3\)"):
        draw([np.zeros((3, 64, 64, 3), np.uint8)], ["a"], [0], [0.5])
    clips = sampler(MAKERS["unet3d"]())
    with pytest.raises(ShapeError, match=r"'unet3d' is given clips of 3 frames, got one of shape \(64, 64, 3\)"):
        clips(given, ["a"], [0], [0.5])
    with pytest.raises(ShapeError, match=r"media: clips of 3 frames are expected \(num_frames\), got one of 5"):
        clips([Clip(np.zeros((5, 64, 64, 3), np.uint8), 8.0)], ["a"], [0], [0.5])

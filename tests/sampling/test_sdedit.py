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
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, draw.shape, dtype=np.uint8) for _ in range(count)]


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
        (alone,) = draw([given[i]], [prompts[i]], [seeds[i]], [strengths[i]])
        assert alone.shape == draw.shape and alone.dtype == np.uint8
        assert np.array_equal(alone, together[i]) and np.array_equal(alone, backwards[i]), i


def test_rows_that_begin_later_are_what_they_are_alone_to_the_last_bit(family: DenoiserFamily) -> None:
    """Pixels would forgive a difference in a latent's seventh digit."""
    settings = SamplerSettings(num_inference_steps=6, guidance_scale=2.0)
    if isinstance(family.schedule, DiscreteSchedule):
        settings = SamplerSettings(num_inference_steps=6, guidance_scale=2.0, solver="dpmpp_2m")
    shape = family.latent_shape(64, FRAMES if family.unit_dims else None)
    noisy = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    told, without = family.encode_prompt(["a", "b"], 64), family.unconditional(64)
    role = NetworkRole(family, family.network)

    def drawn(begins: list[int]) -> Tensor:
        return sample_latents(family, role, noisy, told, without, settings, begins=begins)

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
    (start,) = draw([one], ["a"], [0], [0.6])
    for changed in ((other, "a", 0, 0.6), (one, "b", 0, 0.6), (one, "a", 1, 0.6), (one, "a", 0, 0.8)):
        (again,) = draw(*[[value] for value in changed])  # type: ignore[arg-type]
        assert not np.array_equal(again, start), changed[1:]


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
    with pytest.raises(ShapeError, match=r"media: must be \(64, 64, 3\) uint8, got \(3, 64, 64, 3\) uint8"):
        draw([np.zeros((3, 64, 64, 3), np.uint8)], ["a"], [0], [0.5])
    clips = sampler(MAKERS["unet3d"]())
    with pytest.raises(ShapeError, match=r"media: must be \(3, 64, 64, 3\) uint8, got \(64, 64, 3\) uint8"):
        clips(given, ["a"], [0], [0.5])

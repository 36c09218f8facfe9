"""Pictures and videos are the stock pipeline's for the same seed, and a function of prompt and seed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from diffpref.core.errors import ConfigError
from diffpref.core.media import Clip
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole
from diffpref.sampling import Sampler, SamplerSettings, sample_latents
from diffpref.schedules import DiscreteSchedule, FlowSchedule

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {
    name: registry.get(name).tiny for name in ("sd", "sdxl", "sd3", "unet3d", "animatediff", "animatediff_sdxl")
}
MAKERS["sd, v_prediction"] = lambda: registry.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]
PROMPTS, SEEDS = ["a red circle", "two squares", ""], [3, 2**40 + 1, 7]
SOLVERS = {"ddim": DDIMScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=MAKERS)
def family(request: Any) -> DenoiserFamily:
    return MAKERS[request.param]()


def sampler(family: DenoiserFamily, **settings: Any) -> Sampler:
    return Sampler(family, NetworkRole(family, family.network), SamplerSettings(**{"batch_size": 3, **settings}))


def stock(family: DenoiserFamily, output: str, steps: int, guidance: float) -> Any:
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    video = bool(family.unit_dims)
    drawn = pipeline(
        PROMPTS,
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type=output,
        **({"num_frames": 3} if video else {}),
    )
    return drawn.frames if video else drawn.images


def shape(family: DenoiserFamily, side: int) -> tuple[int, ...]:
    return (*([3] if family.unit_dims else []), side, side, 3)


def pixels(drawn: Any) -> np.ndarray:
    return drawn.frames if isinstance(drawn, Clip) else drawn


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [4, 12])
@pytest.mark.parametrize("guidance", [0.0, 5.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_latents_are_the_stock_pipelines(
    family: DenoiserFamily, solver: str, guidance: float, steps: int, spacing: str
) -> None:
    if not isinstance(family.schedule, DiscreteSchedule):
        pytest.skip("a flow has another grid; see below")
    config = {**family.scheduler_config, "timestep_spacing": spacing, "_class_name": SOLVERS[solver].__name__}
    family.scheduler_config = config
    family.schedule = DiscreteSchedule.from_config(config)
    ours = sampler(family, solver=solver, num_inference_steps=steps, guidance_scale=guidance)
    latents = sample_latents(
        family,
        ours.role,
        ours.initial_latents(SEEDS),
        family.encode_prompt(PROMPTS, 64),
        family.unconditional(64),
        ours.settings,
    )
    torch.testing.assert_close(latents, stock(family, "latent", steps, guidance), rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 5.0])
@pytest.mark.parametrize("name", ["unet3d", "animatediff", "animatediff_sdxl"])
def test_latents_of_a_video_are_the_stock_pipelines_to_the_fifth_digit(name: str, guidance: float) -> None:
    family = MAKERS[name]()
    ours = sampler(family, num_inference_steps=6, guidance_scale=guidance)
    told, without = family.encode_prompt(PROMPTS, 64), family.unconditional(64)
    latents = sample_latents(family, ours.role, ours.initial_latents(SEEDS), told, without, ours.settings)
    # those of an untrained network reach 14, where float32 has six digits behind the point
    torch.testing.assert_close(latents, stock(family, "latent", 6, guidance), rtol=1e-5, atol=1e-5)


FLOWS = {
    "static": {"shift": 3.0},
    "none": {"shift": 1.0},
    "dynamic": {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    "linear": {"use_dynamic_shifting": True, "base_shift": 0.9, "max_shift": 1.4, "time_shift_type": "linear"},
}


@pytest.mark.parametrize("shift", FLOWS)
@pytest.mark.parametrize("guidance", [0.0, 5.0])
@pytest.mark.parametrize("steps", [1, 12])
def test_latents_of_a_flow_are_the_stock_pipelines(shift: str, guidance: float, steps: int) -> None:
    family = registry.get("sd3").tiny(t5=False)  # type: ignore[call-arg]
    family.scheduler_config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **FLOWS[shift]}
    family.schedule = FlowSchedule.from_config(family.scheduler_config)
    ours = sampler(family, num_inference_steps=steps, guidance_scale=guidance)
    told, without = family.encode_prompt(PROMPTS, 64), family.unconditional(64)
    latents = sample_latents(family, ours.role, ours.initial_latents(SEEDS), told, without, ours.settings)
    torch.testing.assert_close(latents, stock(family, "latent", steps, guidance), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="'dpmpp_2m' is for chains"):
        sampler(family, solver="dpmpp_2m")(["a"], [0])


def test_pictures_are_the_stock_pipelines(family: DenoiserFamily) -> None:
    pictures = [pixels(one) for one in sampler(family, num_inference_steps=4, guidance_scale=3.0)(PROMPTS, SEEDS)]
    assert len(pictures) == 3
    for ours, theirs in zip(pictures, stock(family, "pil", 4, 3.0), strict=True):
        assert ours.shape == shape(family, 64) and ours.dtype == np.uint8
        several = np.stack([np.asarray(frame) for frame in theirs]) if family.unit_dims else np.asarray(theirs)
        assert np.abs(ours.astype(int) - several.astype(int)).max() <= 1


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_picture_does_not_depend_on_its_companions(family: DenoiserFamily, guidance: float) -> None:
    draw = sampler(family, num_inference_steps=3, guidance_scale=guidance, batch_size=4)
    prompts, seeds = [f"{i} things" for i in range(6)], list(range(6))
    together = [pixels(one) for one in draw(prompts, seeds)]
    backwards = [pixels(one) for one in draw(prompts[::-1], seeds[::-1])[::-1]]
    for i in range(6):
        alone = pixels(draw([prompts[i]], [seeds[i]])[0])
        assert np.array_equal(alone, together[i]) and np.array_equal(alone, backwards[i]), i


def test_a_latent_is_bit_equal_whatever_stands_in_the_other_rows(family: DenoiserFamily) -> None:
    draw = sampler(family, num_inference_steps=3)

    def row(seeds: list[int], prompts: list[str], place: int) -> torch.Tensor:
        told = family.encode_prompt(prompts, 64)
        latents = draw.initial_latents(seeds)
        return sample_latents(family, draw.role, latents, told, family.unconditional(64), draw.settings)[place]

    first = row([5, 1, 2, 3], ["x", "a", "b", "c"], 0)
    assert torch.equal(first, row([9, 8, 5, 7], ["d", "e", "x", "f"], 2))


def test_seed_prompt_and_settings_all_matter(family: DenoiserFamily) -> None:
    def one(prompt: str, seed: int, **settings: Any) -> np.ndarray:
        return pixels(sampler(family, **{"num_inference_steps": 2, "batch_size": 1, **settings})([prompt], [seed])[0])

    start = one("a", 0)
    assert np.array_equal(one("a", 0), start)
    latents = sampler(family).initial_latents([0, 1])
    assert not torch.equal(latents[0], latents[1])
    for other in (
        one("a", 1),
        one("b", 0, guidance_scale=30.0),
        one("a", 0, num_inference_steps=3),
        *([] if family.name == "sd3" else [one("a", 0, solver="dpmpp_2m")]),
    ):
        assert not np.array_equal(other, start)


def test_the_resolution_is_the_families_unless_given(family: DenoiserFamily) -> None:
    assert sampler(family).resolution == family.native_resolution()
    (picture,) = sampler(family, resolution=32, num_inference_steps=1, batch_size=1)(["a"], [0])
    assert pixels(picture).shape == shape(family, 32)


@pytest.mark.parametrize("name", ["unet3d", "animatediff", "animatediff_sdxl"])
def test_a_video_has_as_many_frames_as_asked(name: str) -> None:
    family = MAKERS[name]()
    (clip,) = sampler(family, num_frames=5, num_inference_steps=1, batch_size=1)(["a"], [0])
    assert clip.frames.shape == (5, 64, 64, 3) and clip.frames.dtype == np.uint8 and clip.fps == 8
    noise = torch.randn((1, 4, 5, 8, 8), generator=torch.Generator().manual_seed(9))
    assert torch.equal(sampler(family, num_frames=5).initial_latents([4, 9])[1:], noise)


@pytest.mark.parametrize("name", ["unet3d", "animatediff"])
def test_the_speed_of_a_video_changes_no_pixel(name: str) -> None:
    family = MAKERS[name]()
    options = {"num_inference_steps": 1, "batch_size": 1}
    (fast,), (usual,) = (sampler(family, **options, **told)(["a"], [0]) for told in ({"fps": 24}, {}))
    assert (fast.fps, usual.fps) == (24, family.fps) and np.array_equal(fast.frames, usual.frames)  # type: ignore[attr-defined]
    settled = SamplerSettings(resolution=32).settled(family)
    assert (settled.resolution, settled.num_frames, settled.fps) == (32, 3, 8) and str(settled).endswith("3 frames")


def test_nothing_asked_is_nothing_drawn(family: DenoiserFamily) -> None:
    assert sampler(family)([], []) == []


def test_the_number_of_rows_of_every_call_is_a_function_of_the_settings(family: DenoiserFamily) -> None:
    rows: list[int] = []

    class Counting(NetworkRole):
        def __call__(self, asked: Any, grad: bool = False) -> Any:
            rows.append(len(asked.inputs["noisy"]))
            return super().__call__(asked, grad)

    role = Counting(family, family.network)
    Sampler(family, role, SamplerSettings(num_inference_steps=2, batch_size=3))(["a"] * 4, [0, 1, 2, 3])
    assert rows == [6] * 4
    rows.clear()
    Sampler(family, role, SamplerSettings(num_inference_steps=2, batch_size=3, guidance_scale=1.0))(["a"], [0])
    assert rows == [3] * 2


def test_mistakes_are_refused() -> None:
    family = MAKERS["sd"]()
    with pytest.raises(ConfigError, match="num_frames: 'sd' makes images, which have none; leave it out"):
        sampler(family, num_frames=3)(["a"], [0])
    with pytest.raises(ConfigError, match="fps: 'sd' makes images, which have none; leave it out"):
        sampler(family, fps=8)
    with pytest.raises(ConfigError, match="fps: must be above 0 and at most 500, got 0"):
        SamplerSettings(fps=0)
    with pytest.raises(ConfigError, match="num_frames: 'animatediff' from tiny takes clips of 1 to 8 frames, got 9"):
        sampler(MAKERS["animatediff"](), num_frames=9)(["a"], [0])
    with pytest.raises(ConfigError, match="num_frames: 'unet3d' from tiny takes clips of at least 1 frame, got 0"):
        sampler(MAKERS["unet3d"](), num_frames=0)(["a"], [0])
    with pytest.raises(ConfigError, match="a seed is needed for each prompt: got 2 prompts and 1 seeds"):
        sampler(family)(["a", "b"], [0])
    with pytest.raises(ConfigError, match="at least 1"):
        SamplerSettings(num_inference_steps=0)
    with pytest.raises(ConfigError, match="at least 1"):
        SamplerSettings(batch_size=0)
    with pytest.raises(ConfigError, match="solver: must be one of ddim, dpmpp_2m, got 'euler'"):
        SamplerSettings(solver="euler")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="resolution: must be a multiple of 8, got 100"):
        sampler(family, resolution=100)

"""Noise schedules and sampler steps: printed numbers, round trips, and diffusers as the second implementation."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError
from diffpref.schedules import (
    SPACINGS,
    Density,
    DiscreteSchedule,
    FlowSchedule,
    Schedule,
    ddim_distribution,
    ddim_landings,
    ddim_path,
    ddim_step,
    ddim_timesteps,
    dpmpp_2m_step,
    dpmpp_2m_timesteps,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "likelihood" / "denoising.json").read_text())
SD = {**GOLDEN["schedule"], "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
quiet = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
TRAILING = {**SD, "prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
CONFIGS = {
    "sd": SD,
    "v": {**SD, "prediction_type": "v_prediction"},
    "sample": {**SD, "prediction_type": "sample"},
    "zero_snr": TRAILING,
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
    "default": {"clip_sample": False},
    "short": {"num_train_timesteps": 100, "beta_schedule": "linear", "beta_end": 0.1, "clip_sample": False},
    "trained": {"trained_betas": [0.1, 0.2, 0.3, 0.4], "num_train_timesteps": 4, "clip_sample": False},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def printed(actual: Any, expected: str) -> None:
    unit = 10.0 ** int(Decimal(expected).as_tuple().exponent)
    assert abs(float(actual) - float(expected)) <= 0.5000001 * unit, f"{float(actual):.12g} is not {expected}"


def toy(noisy: torch.Tensor, t: int) -> torch.Tensor:
    """A denoiser that depends on everything it is given."""
    return 0.6 * noisy + 0.1 * torch.sin(3 * noisy) + t / 5000


def test_golden_levels() -> None:
    schedule = DiscreteSchedule.from_config(SD)
    for t, expected in GOLDEN["alphas_cumprod"].items():
        printed(schedule.alphas_cumprod[int(t)], expected)


def test_golden_elbo_weights() -> None:
    schedule = DiscreteSchedule.from_config(SD)
    for t, expected in GOLDEN["elbo_weights_epsilon"].items():
        printed(schedule.elbo_weight(torch.tensor(int(t))), expected)
    weights = schedule.elbo_weight(torch.arange(1000))
    assert weights[0].isinf()
    printed(weights[1:].mean(), GOLDEN["elbo_weight_mean"])
    printed(weights[20:].mean(), GOLDEN["elbo_weight_mean_from_20"])
    assert int(weights.argmin()) == 422


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_levels_are_those_of_diffusers(config: dict[str, Any]) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**config).alphas_cumprod.double()
    torch.testing.assert_close(DiscreteSchedule.from_config(config).alphas_cumprod, theirs, rtol=1e-5, atol=2e-7)


def test_a_rescaled_schedule_ends_in_pure_noise_and_starts_where_it_did() -> None:
    schedule = DiscreteSchedule.from_config(SD)
    rescaled = schedule.rescaled()
    assert rescaled.alphas_cumprod[-1] == 0 and (rescaled.alphas_cumprod.diff() < 0).all()
    torch.testing.assert_close(rescaled.alphas_cumprod[0], schedule.alphas_cumprod[0], rtol=1e-14, atol=0)
    torch.testing.assert_close(rescaled.rescaled().alphas_cumprod, rescaled.alphas_cumprod, rtol=1e-14, atol=0)
    assert rescaled.steps_offset == schedule.steps_offset


def test_noise_and_velocity_are_those_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs, ours = DDPMScheduler(**GOLDEN["schedule"]), DiscreteSchedule.from_config(CONFIGS["v"])
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 17, 500, 999])
    torch.testing.assert_close(
        ours.add_noise(clean, noise, timesteps), theirs.add_noise(clean, noise, timesteps), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        ours.target(clean, noise, timesteps), theirs.get_velocity(clean, noise, timesteps), rtol=1e-5, atol=1e-5
    )


def schedules() -> dict[str, Schedule]:
    kinds = ("epsilon", "v_prediction", "sample", "flow")
    discrete = {kind: DiscreteSchedule.from_config({**SD, "prediction_type": kind}) for kind in kinds}
    return {**discrete, "straight": FlowSchedule()}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(schedules())), st.integers(1, 999), st.integers(0, 2**31 - 1))
def test_a_perfect_prediction_is_read_back_as_clean_data_and_noise(name: str, t: int, seed: int) -> None:
    schedule = schedules()[name]
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([t, 1]) if name != "straight" else torch.tensor([t / 1000, 0.5], dtype=torch.float64)
    noisy, prediction = schedule.add_noise(clean, noise, timesteps), schedule.target(clean, noise, timesteps)
    torch.testing.assert_close(schedule.to_clean(prediction, noisy, timesteps), clean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(schedule.to_noise(prediction, noisy, timesteps), noise, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [1, 500, 999])
def test_predictions_of_all_types_are_one_anothers(t: int) -> None:
    clean, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    several = {kind: schedule for kind, schedule in schedules().items() if kind != "straight"}
    timesteps = torch.tensor([t, 700])
    noisy = several["epsilon"].add_noise(clean, noise, timesteps)
    for own, schedule in several.items():
        said = schedule.target(clean, noise, timesteps)
        for other, wanted in several.items():
            found = schedule.convert(said, noisy, timesteps, other)  # type: ignore[arg-type]
            expected = wanted.target(clean, noise, timesteps)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8, msg=f"{own} to {other}")


def test_where_nothing_but_noise_is_left_a_velocity_still_tells_both() -> None:
    schedule = DiscreteSchedule.from_config(CONFIGS["v"]).rescaled()
    clean, noise = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    last = torch.tensor([999])
    noisy, velocity = schedule.add_noise(clean, noise, last), schedule.target(clean, noise, last)
    assert torch.equal(noisy, noise) and torch.equal(velocity, -clean)
    assert torch.equal(schedule.to_clean(velocity, noisy, last), clean)
    assert torch.equal(schedule.to_noise(velocity, noisy, last), noise)
    middle = torch.tensor([500])
    there = ddim_step(schedule, velocity, noisy, last, middle)
    torch.testing.assert_close(there, schedule.add_noise(clean, noise, middle), rtol=0, atol=1e-12)
    back = ddim_step(schedule, schedule.target(clean, noise, middle), there, middle, last)
    torch.testing.assert_close(back, noise, rtol=0, atol=1e-12)
    mean, std = ddim_distribution(schedule, velocity, noisy, last, middle, eta=1.0)
    assert bool(mean.isfinite().all()) and bool((std > 0).all())


def test_elbo_weights_of_all_prediction_types_weigh_the_same_clean_error() -> None:
    t = torch.tensor([1, 30, 500, 999])
    of = {kind: schedule.elbo_weight(t) for kind, schedule in schedules().items() if kind != "straight"}
    schedule = schedules()["sample"]
    sigma, ends = schedule.sigma(t), schedule.alpha(t) + schedule.sigma(t)
    torch.testing.assert_close(of["epsilon"], of["sample"] / schedule.snr(t))
    torch.testing.assert_close(of["v_prediction"], of["sample"] * sigma**2)
    torch.testing.assert_close(of["flow"], of["sample"] * (sigma / ends) ** 2)


def test_half_precision_is_mixed_in_float32_and_returned_as_given() -> None:
    schedule, timesteps = DiscreteSchedule.from_config(SD), torch.tensor([0, 999])
    clean, noise = torch.randn(2, 2, 64).to(torch.bfloat16)
    noisy = schedule.add_noise(clean, noise, timesteps)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, schedule.add_noise(clean.float(), noise.float(), timesteps).to(torch.bfloat16))


@quiet
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 7, 10, 50])
def test_timesteps_are_those_of_diffusers(spacing: str, num_steps: int) -> None:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    config = {**GOLDEN["schedule"], "steps_offset": 1, "timestep_spacing": spacing}
    schedule = DiscreteSchedule.from_config(config)
    for scheduler, ours in (
        (DDIMScheduler(**config), ddim_timesteps(schedule, num_steps)),
        (DPMSolverMultistepScheduler(**config), dpmpp_2m_timesteps(schedule, num_steps)),
    ):
        scheduler.set_timesteps(num_steps)
        assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("num_steps", [10, 12])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["sd", "v", "sample", "zero_snr", "default"])
def test_a_ddim_trajectory_is_that_of_diffusers(name: str, spacing: str, num_steps: int) -> None:
    from diffusers import DDIMScheduler

    config = {**CONFIGS[name], "timestep_spacing": spacing}
    scheduler, schedule = DDIMScheduler(**config), DiscreteSchedule.from_config(config)
    scheduler.set_timesteps(num_steps)
    grid = ddim_timesteps(schedule, num_steps)
    ours = theirs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t, following in zip(grid, ddim_landings(schedule, grid), strict=True):
        theirs = scheduler.step(toy(theirs, int(t)), int(t), theirs).prev_sample
        ours = ddim_step(schedule, toy(ours, int(t)), ours, t.expand(2), following.expand(2))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@quiet
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["sd", "v"])
@pytest.mark.parametrize("num_steps", [4, 12, 20])
def test_a_dpm_solver_trajectory_is_that_of_diffusers(name: str, spacing: str, num_steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    config = {k: v for k, v in CONFIGS[name].items() if k not in ("clip_sample", "set_alpha_to_one")}
    config["timestep_spacing"] = spacing
    scheduler, schedule = DPMSolverMultistepScheduler(**config), DiscreteSchedule.from_config(config)
    scheduler.set_timesteps(num_steps)
    grid = dpmpp_2m_timesteps(schedule, num_steps)
    ours = theirs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before: tuple[Any, Any] = (None, None)
    for t, following in zip(grid, [*grid[1:], torch.tensor(-1)], strict=True):
        theirs = scheduler.step(toy(theirs, int(t)), t, theirs).prev_sample
        at = t.expand(2)
        clean = schedule.to_clean(toy(ours, int(t)), ours, at)
        ours = dpmpp_2m_step(schedule, clean, ours, at, following.expand(2), *before)
        before = (clean, at)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


def test_inverting_a_ddim_step_leads_back_for_a_constant_noise_prediction() -> None:
    schedule, up, down = DiscreteSchedule.from_config(SD), torch.tensor([601]), torch.tensor([401])
    noisy, noise = torch.randn(2, 1, 4, dtype=torch.float64)
    there = ddim_step(schedule, noise, noisy, down, up)
    torch.testing.assert_close(ddim_step(schedule, noise, there, up, down), noisy)


def test_the_last_ddim_step_lands_where_the_config_says() -> None:
    noisy, zero, t = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])
    end = torch.tensor([-1])
    to_one = DiscreteSchedule.from_config({**SD, "set_alpha_to_one": True})
    to_first = DiscreteSchedule.from_config(SD)
    clean = to_one.to_clean(zero, noisy, t)
    torch.testing.assert_close(ddim_step(to_one, zero, noisy, t, end), clean)
    torch.testing.assert_close(ddim_step(to_first, zero, noisy, t, end), clean * to_first.alphas_cumprod[0].sqrt())


def test_configs_that_cannot_be_read_are_refused() -> None:
    for config, message in (
        ({"beta_schedule": "scaled_linaer"}, "unknown 'scaled_linaer'; did you mean 'scaled_linear'"),
        ({"prediction_type": "noise"}, "prediction_type: must be one of epsilon"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "flow-matching scheduler; use FlowSchedule"),
    ):
        with pytest.raises(ConfigError, match=message):
            DiscreteSchedule.from_config(config)
    schedule = DiscreteSchedule.from_config(SD)
    for arguments, message in (
        ((10, "leeding"), "did you mean 'leading'"),
        ((0, None), r"must be in 1\.\.\.1000, got 0"),
        ((1001, None), "got 1001"),
        ((1000, None), "beyond the chain"),
    ):
        with pytest.raises(ConfigError, match=message):
            ddim_timesteps(schedule, *arguments)
    zero = torch.zeros(1, 1)
    with pytest.raises(ConfigError, match="or neither"):
        dpmpp_2m_step(schedule, zero, zero, torch.tensor([9]), torch.tensor([5]), previous_clean=zero)


def test_the_schedules_import_no_model_library() -> None:
    code = "import sys, diffpref.schedules, diffpref.likelihood; print('diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- flows


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_a_flows_table_is_that_of_diffusers(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = FlowSchedule.from_config(theirs.config)
    places = torch.arange(1000, dtype=torch.float64) / 1000  # SD3's index / 1000
    torch.testing.assert_close(schedule.draw(places).float(), theirs.sigmas[:1000], rtol=0, atol=1e-6)
    for steps in (1, 7, 50):
        theirs.set_timesteps(steps)
        torch.testing.assert_close(schedule.grid(steps).float(), theirs.sigmas[:-1], rtol=0, atol=1e-6)


def test_published_numbers_of_shift_3() -> None:
    schedule = FlowSchedule(shift=3.0)
    drawn = schedule.draw(torch.tensor([0.0, 0.001, 0.25, 0.5, 0.75, 0.999], dtype=torch.float64))
    expected = torch.tensor([1.0, 0.9996664, 0.9, 0.75, 0.5, 0.0029940], dtype=torch.float64)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_dynamic_shift_is_that_of_diffusers(kind: str) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    schedule = FlowSchedule.from_config(theirs.config)
    for tokens in (256, 1024, 4096):
        mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
        theirs.set_timesteps(9, mu=mu)
        torch.testing.assert_close(schedule.at(tokens).grid(9).float(), theirs.sigmas[:-1], rtol=0, atol=1e-6)
    assert FlowSchedule(shift=3.0).at(4096) == FlowSchedule(shift=3.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler is no flow-matching scheduler"),
        ({"use_karras_sigmas": True}, "scheduler.use_karras_sigmas: True is not supported"),
        ({"shift_terminal": 0.1}, "scheduler.shift_terminal: 0.1 is not supported"),
        ({"shift": 0}, "scheduler.shift: must be > 0, got 0"),
    ],
)
def test_other_flows_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowSchedule.from_config(config)


@pytest.mark.parametrize(
    "density", [Density(), Density("logit_normal", 0.5, 0.8), Density("mode"), Density("mode", mode_scale=-0.5)]
)
def test_a_density_is_drawn_by_its_quantiles(density: Density) -> None:
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = density(u)
    assert drawn.min() >= 0 and drawn.max() <= 1
    steps = drawn.diff()
    assert bool((steps > 0).all()) or bool((steps < 0).all())
    if density.kind == "logit_normal":
        logits = torch.logit(drawn)
        assert logits.mean() == pytest.approx(0.5, abs=1e-3) and logits.std() == pytest.approx(0.8, abs=2e-3)
    if density.kind == "mode":  # as diffusers' compute_density_for_timestep_sampling
        expected = 1 - u - density.mode_scale * (torch.cos(torch.pi * u / 2) ** 2 - 1 + u)
        torch.testing.assert_close(drawn, expected)


def test_a_density_never_gives_more_than_noise_nor_less_than_nothing() -> None:
    edges = torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64)
    for kind in ("uniform", "logit_normal", "mode"):
        levels = FlowSchedule(shift=3.0).draw(Density(kind)(edges))
        assert bool(((levels >= 0) & (levels <= 1)).all()) and bool(levels.isfinite().all())


@pytest.mark.parametrize(
    ("values", "message"), [({"logit_std": 0.0}, "logit_std"), ({"mode_scale": 2.0}, "mode_scale")]
)
def test_densities_that_are_none_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Density("mode", **values)


def test_a_ddim_step_of_a_flow_is_eulers() -> None:
    schedule, generator = FlowSchedule(shift=3.0), torch.Generator().manual_seed(0)
    noisy, velocity = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    levels, landings = ddim_path(schedule, 5)
    assert landings.tolist() == [*levels[1:].tolist(), 0.0] and float(levels[0]) == 1.0
    here, there = levels[1].expand(2), levels[2].expand(2)
    stepped = ddim_step(schedule, velocity, noisy, here, there)
    torch.testing.assert_close(stepped, noisy + float(levels[2] - levels[1]) * velocity, rtol=0, atol=1e-6)

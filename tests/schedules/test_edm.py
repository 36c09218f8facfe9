"""EDM's levels: printed numbers, round trips, and diffusers' Euler sampler with the config of SVD."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.schedules import EdmSchedule, ddim_path, ddim_step

SVD: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_printed_numbers() -> None:
    schedule, level, clean, noise = EdmSchedule(), real(2), real(1), real(0.5)
    noisy, velocity = schedule.add_noise(clean, noise, level), schedule.target(clean, noise, level)
    assert noisy.item() == pytest.approx(0.8944271910, abs=5e-11)
    assert schedule.unscaled(noisy, level).item() == pytest.approx(2.0, abs=1e-14)
    assert schedule.network_time(level).item() == pytest.approx(0.1732867951, abs=5e-11)
    assert velocity.item() == pytest.approx(-0.6708203932, abs=5e-11)
    assert schedule.to_clean(velocity, noisy, level).item() == pytest.approx(1.0, abs=1e-14)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(0.002, 700), st.integers(0, 2**31 - 1))
def test_a_perfect_prediction_is_read_back_as_clean_data_and_noise(level: float, seed: int) -> None:
    schedule, levels = EdmSchedule(), real(level, 1)
    clean, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noisy, velocity = schedule.add_noise(clean, noise, levels), schedule.target(clean, noise, levels)
    torch.testing.assert_close(schedule.to_clean(velocity, noisy, levels), clean, rtol=0, atol=1e-12)
    torch.testing.assert_close(schedule.to_noise(velocity, noisy, levels), noise, rtol=0, atol=1e-12)
    sample = schedule.unscaled(noisy, levels)
    torch.testing.assert_close(sample, clean + levels.view(2, 1, 1) * noise, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(schedule.scaled(sample, levels), noisy, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num_steps", [1, 9])
def test_a_trajectory_is_that_of_diffusers(num_steps: int) -> None:
    from diffusers import EulerDiscreteScheduler

    theirs, schedule = EulerDiscreteScheduler.from_config(SVD), EdmSchedule.from_config(SVD)
    theirs.set_timesteps(num_steps)
    levels, landings = ddim_path(schedule, num_steps)
    torch.testing.assert_close(levels.float(), theirs.sigmas[:-1], rtol=1e-5, atol=0)
    torch.testing.assert_close(schedule.network_time(levels).float(), theirs.timesteps, rtol=1e-5, atol=1e-6)
    assert landings[-1] == 0
    noisy = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    sample = noisy * theirs.init_noise_sigma
    for level, landing, time in zip(levels, landings, theirs.timesteps, strict=True):
        fed = theirs.scale_model_input(sample, time)
        sample = theirs.step(0.6 * fed + 0.1 * torch.sin(3 * fed) + time / 5, time, sample).prev_sample
        at = level.expand(2)
        velocity = 0.6 * noisy + 0.1 * torch.sin(3 * noisy) + schedule.network_time(level).float() / 5
        noisy = ddim_step(schedule, velocity, noisy, at, landing.expand(2))
        torch.testing.assert_close(schedule.unscaled(noisy, landing.expand(2)), sample, rtol=1e-4, atol=1e-5)


def test_levels_are_drawn_by_the_quantiles_of_a_normal() -> None:
    schedule = EdmSchedule(log_mean=-1.2, log_std=1.2)
    logs = schedule.draw((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).log()
    assert bool((logs.diff() > 0).all())
    assert logs.mean() == pytest.approx(-1.2, abs=1e-3) and logs.std() == pytest.approx(1.2, abs=2e-3)
    assert bool(schedule.draw(real(0, 1)).isfinite().all())
    places = real(0.001, 0.3, 0.5, 0.999)
    torch.testing.assert_close(schedule.place(schedule.draw(places)), places, rtol=1e-9, atol=0)


def test_weights_of_drawn_levels_make_the_integral_of_the_bound() -> None:
    schedule = EdmSchedule()
    levels = schedule.draw((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    clean_error = levels.square() * torch.exp(-levels.log().square() / 2)  # a stand-in that vanishes at both ends
    v_error = clean_error * (1 + levels.square()) / levels.square()
    found = (schedule.elbo_weight(levels) * v_error).mean()  # the integral of exp(-(ln s)^2 / 2) over ln s
    assert found.item() == pytest.approx(math.sqrt(2 * math.pi), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler has no continuous timesteps"),
        ({"timestep_type": "discrete"}, "has no continuous timesteps"),
        ({"prediction_type": "epsilon"}, "scheduler.prediction_type: must be 'v_prediction'"),
        ({"use_karras_sigmas": False}, "scheduler.use_karras_sigmas: must be True"),
        ({"final_sigmas_type": "sigma_min"}, "scheduler.final_sigmas_type: must be 'zero'"),
        ({"sigma_max": None}, "scheduler.sigma_max: is needed"),
        ({"sigma_max": 0.001}, "must be > 0 and rise"),
    ],
)
def test_other_schedulers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EdmSchedule.from_config({**SVD, **change})


def test_settings_that_make_no_density_are_refused() -> None:
    with pytest.raises(ConfigError, match="log_std: must be > 0"):
        EdmSchedule(log_std=0)
    with pytest.raises(ConfigError, match="predicts 'v_prediction'"):
        EdmSchedule(prediction_type="epsilon")
    with pytest.raises(ConfigError, match="num_steps"):
        EdmSchedule().grid(0)

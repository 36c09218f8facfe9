"""Gaussian sampler steps: the printed numbers of the official codes, and the deterministic limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffpref.ranking import dynamic_thresholds
from diffpref.schedules import (
    DiscreteSchedule,
    cps_logps,
    dance_sde_step,
    ddim_distribution,
    ddim_landings,
    ddim_std,
    ddim_step,
    ddim_timesteps,
    flow_cps_step,
    flow_sde_step,
    gaussian_kl,
    gaussian_logps,
)

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
V, X, NEXT = ([[[[0.5, -0.2]]]], [[[[1.0, 0.3]]]], [[[[0.9, 0.4]]]])


def real(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ddpo_s_log_probability_of_a_ddim_step() -> None:
    schedule = DiscreteSchedule.from_config(SD)
    mean, std = ddim_distribution(schedule, real(V), real(X), torch.tensor([501]), torch.tensor([481]), eta=1.0)
    assert gaussian_logps(real([[[[0.95, 0.35]]]]), mean, std).item() == pytest.approx(0.29678285, abs=2e-6)


def test_lpo_s_thresholds_over_the_deviations_of_20_steps() -> None:
    schedule = DiscreteSchedule.from_config(SD)
    grid = ddim_timesteps(schedule, 20)
    std = ddim_std(schedule, grid, ddim_landings(schedule, grid)).flip(0)
    printed = [round(value, 4) for value in std.tolist()]  # the official code holds them as a table of four decimals
    assert (printed[0], printed[-1]) == (0.0206, 0.6444)
    thresholds = dynamic_thresholds(printed, lowest=0.35, highest=0.5)
    found = dict(zip(grid.flip(0).tolist(), thresholds, strict=True))
    expected = [0.34999999, 0.41324142, 0.4482767, 0.5]
    assert [found[t] for t in (1, 251, 501, 951)] == pytest.approx(expected, abs=2e-8)


@pytest.mark.parametrize(
    ("index", "logps", "mean", "level"),
    [
        (1, -1.1979089, [0.07825, 0.1542], 2.1),
        (0, -0.59368563, [0.705, 0.2465], 2.2135944),
    ],
)
def test_flow_grpo_s_sde_step(index: int, logps: float, mean: list[float], level: float) -> None:
    sigmas = real([1.0, 0.9, 0.6, 0.0])
    here, following = sigmas[index : index + 1], sigmas[index + 1 : index + 2]
    step = flow_sde_step(real(V), real(X), here, following, noise_level=0.7, second_sigma=0.9)
    assert step.mean.flatten().tolist() == pytest.approx(mean, abs=5e-8)
    assert step.level.item() == pytest.approx(level, abs=5e-8)
    assert gaussian_logps(real(NEXT), step.mean, step.std).item() == pytest.approx(logps, abs=5e-8)


def test_where_the_noise_is_pure_the_next_sigma_stands_for_the_second() -> None:
    given = flow_sde_step(real(V), real(X), real([1.0]), real([0.9]), second_sigma=0.9)
    assert torch.equal(given.mean, flow_sde_step(real(V), real(X), real([1.0]), real([0.9])).mean)


def test_flow_cps_s_step() -> None:
    mean, std = flow_cps_step(real(V), real(X), real([0.9]), real([0.6]), noise_level=0.8)
    assert mean.flatten().tolist() == pytest.approx([0.41468071, 0.24391486], abs=5e-9)
    assert std.item() == pytest.approx(0.57063391, abs=5e-9)
    assert cps_logps(real([[[[0.6, 0.4]]]]), mean).item() == pytest.approx(-0.029352907, abs=5e-10)


def test_flow_grpo_s_divergence_divides_by_the_level() -> None:
    kl = gaussian_kl(real([[[[0.1, 0.2]]]]), real([[[[0.0, 0.1]]]]), real([1.5]))
    assert kl.item() == pytest.approx(0.0022222222, abs=5e-11)


def test_without_noise_every_step_is_that_of_the_ode() -> None:
    here, following = real([0.9]), real([0.6])
    euler = real(X) + (following - here) * real(V)
    for mean in (
        flow_sde_step(real(V), real(X), here, following, noise_level=0.0).mean,
        dance_sde_step(real(V), real(X), here, following, eta=0.0).mean,
        flow_cps_step(real(V), real(X), here, following, noise_level=0.0)[0],
    ):
        torch.testing.assert_close(mean, euler)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_ddim_without_noise_is_the_deterministic_step(prediction_type: str) -> None:
    schedule = DiscreteSchedule.from_config({**SD, "prediction_type": prediction_type})
    arguments = (schedule, real(V), real(X), torch.tensor([501]), torch.tensor([401]))
    mean, std = ddim_distribution(*arguments, eta=0.0)
    assert std.item() == 0
    torch.testing.assert_close(mean, ddim_step(*arguments))


def test_the_sde_s_drift_is_the_ode_s_plus_half_the_squared_level_times_the_score() -> None:
    """DanceGRPO writes the score, Flow-GRPO's formula has it inside: one step at one level."""
    here, following = real([0.7]), real([0.5])
    flow = flow_sde_step(real(V), real(X), here, following, noise_level=0.4)
    dance = dance_sde_step(real(V), real(X), here, following, eta=flow.level.item())
    torch.testing.assert_close(flow.mean, dance.mean)
    torch.testing.assert_close(flow.std, dance.std)


def test_a_log_probability_is_a_mean_and_sends_no_gradient_to_the_sample() -> None:
    sample, mean = real(NEXT).requires_grad_(), real(X).requires_grad_()
    logps = gaussian_logps(sample, mean, real([0.5]))
    density = torch.distributions.Normal(mean, 0.5).log_prob(sample).mean()
    torch.testing.assert_close(logps[0], density)
    logps.sum().backward()
    assert sample.grad is None and mean.grad is not None


def test_half_precision_is_computed_in_float32() -> None:
    here, following = torch.tensor([0.9]), torch.tensor([0.6])
    step = flow_sde_step(torch.tensor(V).bfloat16(), torch.tensor(X).bfloat16(), here, following)
    assert step.mean.dtype == step.std.dtype == step.level.dtype == torch.float32
    assert step.std.item() == pytest.approx(2.1 * math.sqrt(0.3), rel=1e-5)

"""A beta means the same in every convention: the printed numbers, and the margin as the second implementation."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError
from diffpref.likelihood import DenoisingLikelihood
from diffpref.likelihood.beta_units import BETA_UNITS, BetaUnit, convert_beta, mean_elbo_weight
from diffpref.schedules import DiscreteSchedule, FlowSchedule

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD = DiscreteSchedule.from_config(CONFIG)


@pytest.mark.parametrize(
    ("beta", "elements", "printed"),
    [(2000, 16384, "0.0093"), (5000, 16384, "0.0234"), (5000, 65536, "0.0058")],
)
def test_golden_betas_in_nats(beta: float, elements: int, printed: str) -> None:
    nats = convert_beta(beta, source="official", target="nats", num_elements=elements, schedule=SD)
    assert f"{nats:.4f}" == printed
    back = convert_beta(nats, source="nats", target="official", num_elements=elements, schedule=SD)
    assert back == pytest.approx(beta, rel=1e-12)


def test_golden_mean_weights() -> None:
    assert f"{mean_elbo_weight(SD):.7f}" == "0.0065343"
    assert f"{mean_elbo_weight(SD, first=20):.7f}" == "0.0048142"


def test_the_diffusers_default_is_half_the_official() -> None:
    assert convert_beta(5000, source="official", target="diffusers") == 2500
    assert convert_beta(2500, source="diffusers", target="official") == 5000


def margins(beta: float, unit: str, errors: torch.Tensor, elements: int) -> torch.Tensor:
    """Margins from (4, N) summed squared errors at random timesteps, by each convention's own formula."""
    if unit == "official":
        return -0.5 * beta * _difference(errors / elements)
    if unit == "diffusers":
        return -beta * _difference(errors / elements)
    if unit == "sum":
        return -0.5 * beta * _difference(errors)
    return -beta * SD.num_train_timesteps * mean_elbo_weight(SD) * _difference(errors)


def _difference(errors: torch.Tensor) -> torch.Tensor:
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = errors
    return (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(BETA_UNITS, repeat=2)))
def test_the_margin_stays_the_same(source: BetaUnit, target: BetaUnit) -> None:
    errors = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    beta = convert_beta(3.7, source=source, target=target, num_elements=48, schedule=SD)
    torch.testing.assert_close(margins(beta, target, errors, 48), margins(3.7, source, errors, 48), rtol=1e-12, atol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_nats_are_those_of_the_elbo_weighting_on_average_over_timesteps(prediction_type: str) -> None:
    schedule = DiscreteSchedule.from_config({**CONFIG, "prediction_type": prediction_type})
    timesteps = torch.arange(20, 1000)
    count, target = len(timesteps), torch.zeros(len(timesteps), 4, dtype=torch.float64)
    rows = Rows(
        "denoising",
        {"timesteps": timesteps, "target": target},
        Conditioning({"none": torch.zeros(count)}),
        {"chosen": torch.arange(count)},
    )
    outputs = {"policy": {"prediction": target + 0.1}, "reference": {"prediction": target + 0.2}}
    simple, elbo = (
        DenoisingLikelihood(schedule, weighting)(["chosen_log_ratio"], outputs, rows)["chosen_log_ratio"].mean()
        for weighting in ("simple", "elbo")
    )
    scale = 2 * schedule.num_train_timesteps * mean_elbo_weight(schedule, first=20) * 4
    assert elbo.item() == pytest.approx(scale * simple.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "oficial", "target": "nats"}, "unknown unit of beta 'oficial'; did you mean 'official'?"),
        ({"source": "official", "target": "text"}, "unknown unit of beta 'text'; known: official, diffusers"),
        ({"source": "official", "target": "sum"}, "beta in 'sum' needs num_elements"),
        ({"source": "nats", "target": "sum", "num_elements": 4}, "beta in 'nats' needs the checkpoint's schedule"),
        ({"source": "official", "target": "sum", "num_elements": 0}, "needs num_elements, .* got 0"),
        ({"source": "official", "target": "diffusers", "beta": 0.0}, r"beta: must be > 0 and finite, got 0\.0"),
        ({"source": "official", "target": "diffusers", "beta": float("nan")}, "beta: must be > 0 and finite, got nan"),
    ],
)
def test_mistakes_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_beta(**{"beta": 1.0, **arguments})


def test_schedules_without_a_finite_mean_are_refused() -> None:
    nats: dict[str, Any] = {"source": "official", "target": "nats", "num_elements": 4}
    with pytest.raises(ConfigError, match="needs a chain of more than 1 timesteps, got 1"):
        convert_beta(5000, **nats, schedule=FlowSchedule())
    with pytest.raises(ConfigError, match="infinite on this schedule"):
        convert_beta(5000, **nats, schedule=SD.rescaled())

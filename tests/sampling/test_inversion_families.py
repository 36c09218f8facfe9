"""Inversion over roles of real, untrained networks: what is inverted is sampled back; rows do not see each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole
from diffpref.sampling import InversionSettings, SamplerSettings, invert, sample_latents
from diffpref.schedules import DiscreteSchedule, ddim_path

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {
    "sd": registry.get("sd").tiny,
    "sd, v_prediction": lambda: registry.get("sd").tiny(prediction_type="v_prediction"),  # type: ignore[call-arg]
    "sd3": registry.get("sd3").tiny,
}
PROMPTS = ["a red circle", "two squares"]


@pytest.fixture(scope="module", params=MAKERS)
def family(request: pytest.FixtureRequest) -> DenoiserFamily:
    return MAKERS[request.param]()


@pytest.fixture(scope="module")
def conditioning(family: DenoiserFamily) -> Conditioning:
    return family.encode_prompt(PROMPTS, 64)


def latents(family: DenoiserFamily) -> Tensor:
    shape = (len(PROMPTS), *family.latent_shape(64))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def back_and_forth(family: DenoiserFamily, conditioning: Conditioning, steps: int, corrections: int) -> float:
    """The mean squared error of latents that were inverted up to the sampler's first level and sampled down again."""
    role, clean, schedule = NetworkRole(family, family.network), latents(family), family.schedule_at(64)
    top = ddim_path(schedule, steps)[0][:1].expand(len(clean))
    settings = InversionSettings(steps, landing="exact", renoise_steps=corrections)
    found = invert(role, schedule, clean, top, conditioning, settings)
    sampler = SamplerSettings(num_inference_steps=steps, guidance_scale=1.0)
    again = sample_latents(family, role, found.noisy, conditioning, conditioning, sampler)
    return (again - clean).square().mean().item()


def test_corrected_steps_are_sampled_back_better(family: DenoiserFamily, conditioning: Conditioning) -> None:
    plain, corrected = (back_and_forth(family, conditioning, 4, corrections) for corrections in (0, 2))
    assert corrected < 0.5 * plain, (plain, corrected)


@pytest.mark.parametrize("landing", ["official", "exact", "snap"])
def test_a_row_is_what_it_would_be_alone(family: DenoiserFamily, conditioning: Conditioning, landing: str) -> None:
    role, clean, schedule = NetworkRole(family, family.network), latents(family), family.schedule_at(64)
    timesteps = torch.tensor([150, 850])
    if not isinstance(schedule, DiscreteSchedule):
        timesteps = timesteps.double() / 1000
    settings = InversionSettings(5, landing=landing)  # type: ignore[arg-type]
    together = invert(role, schedule, clean, timesteps, conditioning, settings)
    for row in range(2):
        one = slice(row, row + 1)
        alone = invert(role, schedule, clean[one], timesteps[one], conditioning.take(one), settings)
        torch.testing.assert_close(together.noisy[one], alone.noisy, rtol=1e-4, atol=1e-5)
    mixed = schedule.add_noise(clean, together.noise, together.timesteps)
    torch.testing.assert_close(mixed, together.noisy, rtol=1e-5, atol=1e-5)

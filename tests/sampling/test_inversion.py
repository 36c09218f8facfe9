"""Inversion of clean latents: the official numbers on a toy denoiser, the number of calls, and what must hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.sampling import (
    GuidedRole,
    InversionSettings,
    Inverted,
    inversion_noise,
    inversion_trajectory,
    invert,
)
from diffpref.schedules import DiscreteSchedule, EdmSchedule, FlowSchedule, Schedule, ddim_path, ddim_step

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
CHAIN = DiscreteSchedule.from_config(SD)
V = DiscreteSchedule.from_config({**SD, "prediction_type": "v_prediction"})
FLOW, EDM = FlowSchedule(shift=3.0), EdmSchedule()
SCHEDULES: dict[str, Schedule] = {"epsilon": CHAIN, "v": V, "flow": FLOW, "edm": EDM}


def real(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


PAIR = real([[[[1.0, -0.5], [0.25, 0.75]]], [[[-0.8, 0.6], [1.2, -0.4]]]])  # winner and loser, (2, 1, 2, 2)


@dataclass
class Toy:
    """The denoiser a x + b t / 1000 + c of the specification, plus what it is told; remembers what it was asked."""

    a: float
    b: float
    c: float
    asked: list[list[float]] = field(default_factory=list)
    schedule: Schedule = CHAIN  # of its prediction type: the same noise, told as this one tells it

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        noisy, t = rows.inputs["noisy"], rows.inputs["timesteps"]
        assert not torch.is_grad_enabled() and len(rows.conditioning) == len(noisy) == len(t)
        self.asked.append(t.tolist())
        noise = self.a * noisy + rows.conditioning.tensors["text"].view(-1, 1, 1, 1)
        noise = noise + (self.b * t.double() / 1000 + self.c).to(noisy.dtype).view(-1, 1, 1, 1)
        if self.schedule.prediction_type == "v_prediction":
            alpha, sigma = self.schedule.coefficients(noisy, t)
            noise = (noise - sigma * noisy) / alpha
        return {"prediction": noise}


def policy(**changes: Any) -> Toy:
    return Toy(0.30, 0.20, -0.10, **changes)


def reference() -> Toy:
    return Toy(0.25, 0.15, -0.05)


def told(rows: int, text: float = 0.0) -> Conditioning:
    return Conditioning({"text": torch.full((rows,), text, dtype=torch.float64)})


def inverted(
    settings: InversionSettings, t: float = 350, role: Any = None, clean: Tensor = PAIR, **more: Any
) -> Inverted:
    schedule = more.pop("schedule", CHAIN)
    dtype = torch.int64 if isinstance(schedule, DiscreteSchedule) else torch.float64
    timesteps = torch.full((len(clean),), t, dtype=dtype)
    return invert(role or policy(), schedule, clean, timesteps, told(len(clean)), settings, **more)


def errors(role: Toy, found: Inverted) -> Tensor:
    with torch.no_grad():
        rows = Rows("denoising", {"noisy": found.noisy, "timesteps": found.timesteps}, told(2), groups={})
        return (role(rows)["prediction"] - found.target).square().flatten(1).mean(dim=1)


def near(found: Tensor, expected: object, digits: int = 10) -> None:
    torch.testing.assert_close(found.flatten(), real(expected).flatten(), rtol=0, atol=10.0**-digits)


def margin_and_loss(found: Inverted, beta: float = 500.0) -> tuple[float, float]:
    gap = errors(policy(), found) - errors(reference(), found)
    margin = -0.5 * beta * (gap[0] - gap[1]).item()
    return margin, math.log1p(math.exp(-margin))


# ---------------------------------------------------------------- the printed numbers


def test_inpo_s_inversion_without_noise() -> None:
    role = policy()
    found = inverted(InversionSettings(), role=role)
    assert role.asked == [[s, s] for s in (-99, 1, 101, 201, 301)]
    near(found.noisy[0], [0.8136688309, -0.4947943800, 0.1594372255, 0.5955916291])
    near(found.noisy[1], [-0.7564870221, 0.4647453080, 0.9881305924, -0.4075634993])
    near(found.noise[0], [0.1451800035, -0.1977990975, -0.0263095470, 0.0880168200])
    near(found.noise[1], [-0.2663949177, 0.0537189099, 0.1909105504, -0.1749338241])
    near(errors(policy(), found), [0.0026882537, 0.0023526393])
    near(errors(reference(), found), [0.0045723047, 0.0049319526])
    margin, loss = margin_and_loss(found)
    assert margin == pytest.approx(-0.1738155723, abs=6e-11) and loss == pytest.approx(0.7838267040, abs=6e-11)


def test_inpo_s_inversion_with_noise() -> None:
    winner = [
        [0.1, -0.2, 0.3, 0],
        [0.5, 0.1, -0.4, 0.2],
        [-0.2, 0.3, 0.1, -0.1],
        [0.7, -0.3, 0.2, 0.1],
        [0.1, 0.2, -0.6, 0.3],
    ]
    loser = [
        [-0.1, 0.4, 0.2, -0.3],
        [0, -0.6, 0.3, 0.1],
        [0.6, 0.2, -0.5, 0.4],
        [-0.4, 0.1, 0, 0.5],
        [0.2, -0.2, 0.4, -0.1],
    ]
    noise = torch.stack([real(winner), real(loser)], 1).view(5, 2, 1, 2, 2)
    found = inverted(InversionSettings(eta=0.1), noise=noise.__getitem__)
    near(found.noisy[0], [0.8386610653, -0.4889990387, 0.1405609033, 0.6107756875])
    near(errors(policy(), found), [0.0020011680, 0.0019610525])
    margin, loss = margin_and_loss(found)
    assert margin == pytest.approx(0.1002874474, abs=6e-11) and loss == pytest.approx(0.6442601269, abs=6e-11)


def test_the_exact_landing() -> None:
    role = policy()
    found = inverted(InversionSettings(landing="exact", start="first"), role=role)
    assert role.asked == [[t, t] for t in (1, 101, 201, 301, 350)]
    near(found.noisy[0], [0.87457932, -0.50194309, 0.18631811, 0.64515892], 8)
    near(found.noise[0], [0.23188476, -0.20797514, 0.01195481, 0.15857478], 8)
    near(found.noise[1], [-0.29594712, 0.11458879, 0.29053275, -0.17865114], 8)
    found = inverted(InversionSettings(landing="exact", start="one"))
    near(found.noise[0], [0.2389284, -0.21717757, 0.01087542, 0.16291074], 8)


def test_smpo_s_inversion() -> None:
    role = policy()
    found = inverted(InversionSettings(renoise_steps=1), role=role)
    assert [asked[0] for asked in role.asked] == [-99, -99, 1, 1, 101, 101, 201, 201, 301, 301]
    near(found.noisy[0], [0.8081846716, -0.4947702963, 0.1567071877, 0.5910255103])
    near(found.noise[0], [0.1373734221, -0.1977648150, -0.0301956964, 0.0815170492])
    near(found.noise[1], [-0.2647924624, 0.0480032255, 0.1820585204, -0.1754222658])
    near(errors(policy(), found), [0.0031420204, 0.0027582432])
    near(errors(reference(), found), [0.0050665591, 0.0052807633])
    weight = 10 * math.tanh((0.2231 - 0.2104) / (2 * 0.1665804460644722))
    margin, _ = margin_and_loss(found)
    assert weight * margin == pytest.approx(-0.0569596216, abs=1e-9)


def test_smpo_s_inversion_on_five_levels_and_landing_exactly() -> None:
    role = policy()
    found = inverted(InversionSettings(num_steps=5, renoise_steps=1), role=role)
    assert [asked[0] for asked in role.asked[::2]] == [-199, 1, 201]
    near(found.noise[0], [0.1237093695, -0.2075091467, -0.0418998886, 0.0685062835])
    near(errors(policy(), found), [0.0042686114, 0.0037242371])
    found = inverted(InversionSettings(landing="exact", start="first", renoise_steps=1))
    near(found.noisy[0], [0.87156965, -0.50251257, 0.18452854, 0.64255595], 8)
    near(found.noise[0], [0.22760056, -0.20878577, 0.0094074, 0.15486951], 8)
    near(found.noise[1], [-0.29606303, 0.11123087, 0.28578541, -0.17969334], 8)


def test_inversion_dpo_s_trajectory_under_guidance() -> None:
    inverter = GuidedRole(reference(), told(1), 2.0)
    found = inversion_trajectory(inverter, CHAIN, PAIR, told(2, text=0.3), num_steps=4)
    assert found.timesteps.tolist() == [0, 250, 500, 750] and found.noisy.shape == (2, 4, 1, 2, 2)
    assert torch.equal(found.noisy[:, 0], PAIR)
    disagreements = []
    for point, t in enumerate(found.timesteps):
        rows = {"noisy": found.noisy[:, point], "timesteps": t.expand(2)}
        with torch.no_grad():
            said = GuidedRole(policy(), told(1), 2.0)(Rows("denoising", rows, told(2, text=0.3), groups={}))[
                "prediction"
            ]
        apart = (said - found.predictions[:, point]).square().flatten(1).mean(dim=1)
        disagreements.append(apart / (2 * CHAIN.level(t)))
    near(torch.stack(disagreements).sum(0), [0.0144358184, 0.0172589603])


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("t", [0, 1, 2, 101, 102, 350, 901, 902, 999])
def test_the_number_of_calls_is_that_of_the_official_loop(t: int) -> None:
    official = 1 + sum(1 + 100 * k < t for k in range(9))
    for landing, corrections, expected in (
        ("official", 0, official),
        ("snap", 0, official),
        ("official", 2, 3 * official),
        ("exact", 0, 1 + sum(1 + 100 * k < t for k in range(10))),
    ):
        role = policy()
        inverted(InversionSettings(landing=landing, renoise_steps=corrections), t, role)  # type: ignore[arg-type]
        assert len(role.asked) == expected, landing


@pytest.mark.parametrize("landing", ["official", "exact", "snap"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_row_is_what_it_would_be_alone_and_every_rank_makes_the_same_calls(name: str, landing: Any) -> None:
    schedule = SCHEDULES[name]
    settings = InversionSettings(num_steps=7, landing=landing, renoise_steps=1)
    timesteps = torch.tensor([3, 640, 201]) if isinstance(schedule, DiscreteSchedule) else real([0.02, 0.9, 0.4])
    clean = torch.randn(3, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    role = policy()
    together = invert(role, schedule, clean, timesteps, told(3), settings, most=lambda steps: steps + 5)
    alone = policy()
    single = [invert(alone, schedule, clean[[i]], timesteps[[i]], told(1), settings) for i in range(3)]
    for part, of_each in zip(together, zip(*single, strict=True), strict=True):
        assert torch.equal(part, torch.cat(of_each))
    assert together.noisy.dtype == torch.float32
    counts = [len(invert_calls(schedule, clean[[i]], timesteps[[i]], settings)) for i in range(3)]
    assert len(set(counts)) > 1 and len(role.asked) == max(counts) + 2 * 5


def invert_calls(
    schedule: Schedule, clean: Tensor, timesteps: Tensor, settings: InversionSettings
) -> list[list[float]]:
    role = policy()
    invert(role, schedule, clean, timesteps, told(1), settings)
    return role.asked


def test_the_levels_may_be_those_of_the_checkpoint_s_sampler() -> None:
    trailing = replace(CHAIN, timestep_spacing="trailing")
    role = policy()
    inverted(InversionSettings(num_steps=4, landing="exact", spacing=None), 999, role, schedule=trailing)
    assert [asked[0] for asked in role.asked] == [249, 499, 749, 999]
    role = policy()
    inverted(InversionSettings(num_steps=4, spacing=None), 999, role, schedule=trailing)
    assert [asked[0] for asked in role.asked] == [-1, 249, 499, 749]


# ---------------------------------------------------------------- what must hold


@pytest.mark.parametrize("landing", ["official", "exact", "snap"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_clean_latents_and_the_implied_noise_make_the_noisy_ones(name: str, landing: Any) -> None:
    schedule = SCHEDULES[name]
    for t in (5, 350, 950) if isinstance(schedule, DiscreteSchedule) else (0.01, 0.35, 0.97):
        found = inverted(InversionSettings(landing=landing), t, schedule=schedule)
        torch.testing.assert_close(
            schedule.add_noise(PAIR, found.noise, found.timesteps), found.noisy, rtol=0, atol=1e-12
        )
        assert torch.equal(found.target, schedule.target(PAIR, found.noise, found.timesteps))
        grid = ddim_path(schedule, 10)[0].tolist()
        above = min((level for level in grid if level >= t), default=max(grid))
        assert set(found.timesteps.tolist()) == {above if landing == "snap" else t}


def test_snapping_goes_the_official_way_and_tells_the_level_reached() -> None:
    official, snapped = inverted(InversionSettings()), inverted(InversionSettings(landing="snap"))
    assert torch.equal(official.noisy, snapped.noisy) and snapped.timesteps.tolist() == [401, 401]
    level = CHAIN.level(torch.tensor(401))
    torch.testing.assert_close(snapped.noise, (official.noisy - level.sqrt() * PAIR) / (1 - level).sqrt())


@dataclass
class Constant:
    """Predicts the same whatever it is shown."""

    value: Tensor

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        return {"prediction": self.value.expand_as(rows.inputs["noisy"])}


@pytest.mark.parametrize("corrections", [0, 1])
@pytest.mark.parametrize("schedule", [CHAIN, FLOW])
def test_a_constant_prediction_is_what_the_target_becomes(schedule: Schedule, corrections: int) -> None:
    value = real([[0.3, -1.2], [0.7, 0.1]])
    settings = InversionSettings(landing="exact", start="one", renoise_steps=corrections)
    found = inverted(settings, 350 if schedule is CHAIN else 0.35, Constant(value), schedule=schedule)
    torch.testing.assert_close(found.target, value.expand_as(PAIR), rtol=0, atol=1e-12)


def test_one_network_told_as_noise_and_as_velocity_is_inverted_alike() -> None:
    for landing in ("official", "exact", "snap"):
        settings = InversionSettings(landing=landing, renoise_steps=1)  # type: ignore[arg-type]
        as_noise = inverted(settings)
        as_velocity = inverted(settings, role=policy(schedule=V), schedule=V)
        torch.testing.assert_close(as_velocity.noisy, as_noise.noisy, rtol=0, atol=1e-12)
        torch.testing.assert_close(as_velocity.noise, as_noise.noise, rtol=0, atol=1e-12)


def test_renoise_is_ddim_inversion_where_the_latents_do_not_matter() -> None:
    plain, corrected = (inverted(InversionSettings(renoise_steps=steps), role=Toy(0.0, 0.2, -0.1)) for steps in (0, 3))
    torch.testing.assert_close(corrected.noisy, plain.noisy, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sampler_s_path_is_found_back(name: str) -> None:
    """From noise down with a denoiser that looks at the latents, and up again by a fixed point at each step."""
    schedule = SCHEDULES[name] if name in ("flow", "edm") else replace(SCHEDULES[name], set_alpha_to_one=True)  # type: ignore[type-var]
    role = policy(schedule=schedule)
    begins, ends = ddim_path(schedule, 10)
    start = x = torch.randn(PAIR.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        for here, there in zip(begins, ends, strict=True):
            rows = Rows("denoising", {"noisy": x, "timesteps": here.expand(2)}, told(2), groups={})
            x = ddim_step(schedule, role(rows)["prediction"], x, here.expand(2), there.expand(2))
    fixed = InversionSettings(landing="exact", renoise_steps=40, renoise_weights=(*[0.0] * 40, 1.0))
    found = inverted(fixed, begins[0].item(), role, clean=x, schedule=schedule)
    torch.testing.assert_close(found.noisy, start, rtol=0, atol=1e-8)
    plain = inverted(InversionSettings(landing="exact"), begins[0].item(), role, clean=x, schedule=schedule)
    assert (plain.noisy - start).abs().max() > 1e-3


def test_a_flow_whose_velocity_knows_the_time_alone_is_inverted_exactly() -> None:
    start = torch.randn(PAIR.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    role, x = Toy(0.0, 700.0, -0.4), start
    for here, there in zip(*ddim_path(FLOW, 6), strict=True):
        x = x + (there - here) * (0.7 * here - 0.4)
    found = inverted(InversionSettings(num_steps=6, landing="exact"), 1.0, role, clean=x, schedule=FLOW)
    torch.testing.assert_close(found.noisy, start, rtol=0, atol=1e-13)


def test_without_eta_the_same_latents_become_the_same_and_keyed_noise_is_the_row_s_own() -> None:
    same, settings = PAIR[[0, 0]], InversionSettings(eta=0.1)
    assert torch.equal(inverted(InversionSettings()).noisy, inverted(InversionSettings()).noisy)
    found = inverted(InversionSettings(), clean=same)
    assert torch.equal(found.noisy[0], found.noisy[1])
    keys = [("record", 0, "chosen"), ("record", 0, "rejected")]
    noisy = inverted(settings, clean=same, noise=inversion_noise(Random(0), keys, (1, 2, 2))).noisy
    assert not torch.equal(noisy[0], noisy[1])
    alone = inverted(settings, clean=same[:1], noise=inversion_noise(Random(0), keys[1:], (1, 2, 2))).noisy
    assert torch.equal(noisy[1:], alone)


def test_guidance_of_one_is_the_role_itself() -> None:
    rows = Rows("denoising", {"noisy": PAIR, "timesteps": torch.tensor([5, 700])}, told(2, 0.3), groups={})
    with torch.no_grad():
        torch.testing.assert_close(GuidedRole(policy(), told(2), 1.0)(rows)["prediction"], policy()(rows)["prediction"])
        with pytest.raises(ConfigError, match="negative: must have 1 row or 2, got 3"):
            GuidedRole(policy(), told(3), 2.0)(rows)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps: must be at least 1"),
        ({"eta": -0.1}, "eta: at least 0"),
        ({"landing": "exakt"}, "landing: must be one of official, exact, snap, got 'exakt'"),
        ({"start": "zero"}, "start: must be one of scheduler, first, one"),
        ({"told": "both"}, "told: must be one of source, target"),
        ({"renoise_steps": 1, "renoise_weights": (1.0,)}, "must be 2 numbers that sum to 1"),
        ({"renoise_weights": (0.5,)}, "must be 1 numbers that sum to 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InversionSettings(**change)


def test_what_a_schedule_does_not_know_is_refused() -> None:
    for schedule, t, change, message in (
        (CHAIN, 350, {"eta": 0.1}, "eta: needs noise"),
        (CHAIN, 1000, {}, "timesteps: must lie on the path"),
        (CHAIN, 350, {"num_steps": 1001}, "num_steps"),
        (EDM, 0.0, {}, "timesteps: must lie on the path"),
        (FLOW, 0.5, {"start": "first"}, "start: 'first' is for chains"),
        (EDM, 0.5, {"told": "source"}, "cannot be told that there is no noise"),
        (replace(CHAIN, prediction_type="sample"), 350, {"start": "one"}, "a predicted sample implies no noise"),
    ):
        with pytest.raises(ConfigError, match=message):
            inverted(InversionSettings(**change), t, schedule=schedule)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="eta: only chains"):
        inverted(InversionSettings(eta=0.1), 0.5, schedule=FLOW, noise=lambda step: torch.zeros_like(PAIR))

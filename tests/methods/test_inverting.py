"""DDIM-InPO and SmPO: the official numbers on a toy denoiser, what they become in a limit, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import Named
from diffpref.core.contracts import Batch, Conditioning, Context, Rows, World
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods import registry
from diffpref.methods.ddim_inpo import DDIMInPO
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.methods.smpo_diffusion import SmPODiffusion
from diffpref.models import registry as families
from diffpref.models.roles import NetworkRole
from diffpref.objectives import compose
from diffpref.schedules import DiscreteSchedule, FlowSchedule, Schedule

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
CHAIN = DiscreteSchedule.from_config(SD)
V = DiscreteSchedule.from_config({**SD, "prediction_type": "v_prediction"})
FLOW = FlowSchedule(shift=3.0)
RANGE = 0.1665804460644722
ALONE = World()
NAMES = ["chosen_log_ratio", "rejected_log_ratio"]


def real(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


WINNER, LOSER = real([[[[1.0, -0.5], [0.25, 0.75]]]]), real([[[[-0.8, 0.6], [1.2, -0.4]]]])


@dataclass
class Toy:
    """The denoiser a x + b t / 1000 + c of the specification, told by its prediction type; remembers its calls."""

    a: float
    b: float
    c: float
    schedule: Schedule = CHAIN
    calls: list[int] = field(default_factory=list)

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        noisy, t = rows.inputs["noisy"], rows.inputs["timesteps"]
        self.calls.append(len(noisy))
        time = t.double() if isinstance(self.schedule, DiscreteSchedule) else 1000 * t
        noise = self.a * noisy + (self.b * time / 1000 + self.c).to(noisy.dtype).view(-1, *[1] * (noisy.dim() - 1))
        if self.schedule.prediction_type == "v_prediction":
            alpha, sigma = self.schedule.coefficients(noisy, t)
            noise = (noise - sigma * noisy) / alpha
        return {"prediction": noise}


def context(t: float = 350, schedule: Schedule = CHAIN, world: World = ALONE, same: bool = False) -> Context:
    """Of toy roles; every pair has the timestep t."""
    dtype = torch.int64 if isinstance(schedule, DiscreteSchedule) else torch.float64
    family = SimpleNamespace(
        schedule=schedule,
        size_tensors=frozenset(),
        sample_timesteps=lambda u: torch.full((len(u),), t, dtype=dtype),
    )
    numbers = ((0.30, 0.20, -0.10), (0.30, 0.20, -0.10) if same else (0.25, 0.15, -0.05))
    roles = {name: Toy(*three, schedule=schedule) for name, three in zip(("policy", "reference"), numbers, strict=True)}
    return Context(family, roles, Random(0), world=world)


def batch(size: int = 1, **columns: Any) -> Batch:
    """Pairs of the specification's two latents, the later ones turned round; no captions to speak of."""
    media = {"chosen": WINNER.repeat(size, 1, 1, 1), "rejected": LOSER.repeat(size, 1, 1, 1)}
    told = Conditioning({"text": torch.zeros(size, 1, dtype=torch.float64)})
    empty = Conditioning({"text": torch.zeros(1, 1, dtype=torch.float64)})
    keys = tuple((f"record-{i}", 0) for i in range(size))
    return Batch(keys, media, {"": told}, {name: real(value) for name, value in columns.items()}, empty)


def margin_and_loss(method: Any, given: Batch, at: Context, beta: float = 500.0) -> tuple[Tensor, Tensor, Rows]:
    """What the method's own objective says, with another beta."""
    rows = method.prepare(given, at)
    outputs = {name: role(rows) for name, role in at.roles.items()}
    values = DenoisingLikelihood(at.family.schedule)(NAMES, outputs, rows)
    ((name, options),) = method.objectives
    composition = compose([(name, {**options, "beta": beta})])
    ((_, _, term),) = composition({**values, **rows.columns}, {})
    return beta * (values["chosen_log_ratio"] - values["rejected_log_ratio"]), term.losses, rows


# ---------------------------------------------------------------- the printed numbers


def test_inpo_s_loss_is_the_official_one() -> None:
    margin, loss, rows = margin_and_loss(DDIMInPO(eta=0.0), batch(), context())
    assert margin.item() == pytest.approx(-0.1738155723, abs=1e-9)
    assert loss.item() == pytest.approx(0.7838267040, abs=1e-9)
    expected = [0.8136688309, -0.4947943800, 0.1594372255, 0.5955916291]
    torch.testing.assert_close(rows.inputs["noisy"][0].flatten(), real(expected), rtol=0, atol=1e-9)
    assert rows.inputs["timesteps"].tolist() == [350, 350] and rows.columns["timesteps"].tolist() == [350]


@pytest.mark.parametrize(
    ("steps", "expected"), [(10, (-0.0569596216, 0.7220324864)), (5, (-0.0666955583, 0.7270508939))]
)
def test_smpo_s_loss_is_the_official_one(steps: int, expected: tuple[float, float]) -> None:
    method = SmPODiffusion(num_steps=steps, score_range=RANGE)
    margin, loss, rows = margin_and_loss(method, batch(chosen_score=[0.2231], rejected_score=[0.2104]), context())
    assert rows.columns["preference"].item() == pytest.approx(0.5190506334, abs=1e-9)
    assert rows.columns["beta_scale"].item() == pytest.approx(0.3810126687, abs=1e-9)
    assert (rows.columns["beta_scale"] * margin).item() == pytest.approx(expected[0], abs=1e-9)
    assert loss.item() == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "p", "weight"),
    [
        ((0.2201, 0.2200), 0.5001500776, 0.0030015527),
        ((0.28201571106910706, 0.11543526500463486), 0.7310585786, 4.6211715726),
        ((0.21, 0.21), 0.5, 0.0),
    ],
)
def test_the_weights_of_the_official_code(scores: tuple[float, float], p: float, weight: float) -> None:
    columns = {"chosen_score": [scores[0]], "rejected_score": [scores[1]]}
    rows = SmPODiffusion(score_range=RANGE).prepare(batch(**columns), context())
    assert rows.columns["preference"].item() == pytest.approx(p, abs=1e-9)
    assert rows.columns["beta_scale"].item() == pytest.approx(weight, abs=1e-9)


# ---------------------------------------------------------------- what one becomes of the other


@pytest.mark.parametrize("landing", ["official", "exact", "snap"])
@pytest.mark.parametrize("schedule", [CHAIN, V, FLOW], ids=["epsilon", "v", "flow"])
def test_smpo_of_weight_one_without_renoise_is_inpo_without_noise(schedule: Schedule, landing: Any) -> None:
    t = 350 if isinstance(schedule, DiscreteSchedule) else 0.35
    # gamma tanh(gap / 2 range) = 1
    columns = {"chosen_score": [0.3, 0.3], "rejected_score": [0.1, 0.1]}
    smpo = SmPODiffusion(renoise_steps=0, score_range=0.1, gamma=1 / math.tanh(1), landing=landing)
    one, other = (
        margin_and_loss(m, batch(2, **columns), context(t, schedule))
        for m in (smpo, DDIMInPO(eta=0.0, landing=landing))
    )
    assert torch.equal(one[0], other[0])
    for name in ("noisy", "timesteps", "target"):
        assert torch.equal(one[2].inputs[name], other[2].inputs[name])
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "unet3d"])
def test_forward_noise_makes_inpo_diffusion_dpo_to_the_bit(name: str) -> None:
    family: Any = families.get(name).tiny()
    generator, shape = torch.Generator().manual_seed(0), family.latent_shape(64)
    media = {side: torch.randn((6, *shape), generator=generator) for side in ("chosen", "rejected")}
    told, empty = family.encode_prompt([f"caption {i}" for i in range(6)], 64), family.encode_prompt([""], 64)
    given = Batch(tuple((f"r{i}", 1) for i in range(6)), media, {"": told}, {"preference": torch.ones(6)}, empty)
    at = Context(family, {}, Random(3))
    ours = DDIMInPO(noise="forward", empty_prompt_prob=0.5).prepare(given, at)
    published = DiffusionDPO(empty_prompt_prob=0.5).prepare(given, at)
    assert ours.inputs.keys() == published.inputs.keys() and ours.depends_on == published.depends_on == frozenset()
    for one, other in (
        (ours.inputs, published.inputs),
        (ours.conditioning.tensors, published.conditioning.tensors),
        (ours.groups, published.groups),
        (ours.columns, published.columns),
    ):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", [DDIMInPO(), DDIMInPO(landing="exact"), SmPODiffusion(score_range=1.0)])
def test_the_margin_is_zero_where_the_policy_is_the_reference(method: Any) -> None:
    columns = {"chosen_score": [0.9], "rejected_score": [0.1]}
    margin, loss, _ = margin_and_loss(method, batch(**columns), context(same=True))
    assert margin.item() == 0 and loss.item() == pytest.approx(math.log(2), abs=1e-12)


def test_equal_scores_teach_nothing_and_a_constant_on_both_changes_nothing() -> None:
    at, method = context(), SmPODiffusion(score_range=0.5)
    ratios = {name: real([0.3]).requires_grad_() for name in NAMES}
    rows = method.prepare(batch(chosen_score=[0.7], rejected_score=[0.7]), at)
    ((_, _, term),) = compose(method.objectives)({**ratios, **rows.columns}, {})
    term.losses.sum().backward()
    assert term.losses.item() == pytest.approx(math.log(2)) and all(r.grad.item() == 0 for r in ratios.values())
    weights = [
        method.prepare(batch(chosen_score=[s + 0.25], rejected_score=[s]), at).columns["beta_scale"].item()
        for s in (0.0, 4.0)
    ]
    assert weights[0] == pytest.approx(weights[1], abs=1e-12) and weights[0] == pytest.approx(10 * math.tanh(0.25))


def test_a_soft_label_of_the_data_weighs_as_the_scores_it_came_from() -> None:
    scored = SmPODiffusion(score_range=0.5).prepare(batch(chosen_score=[0.7], rejected_score=[0.4]), context())
    method = SmPODiffusion(label_from="preference")
    assert method.needs == {"chosen", "rejected", "preference"} and "preference" not in method.makes
    labelled = method.prepare(batch(preference=[1 / (1 + math.exp(-0.6))]), context())
    torch.testing.assert_close(labelled.columns["beta_scale"], scored.columns["beta_scale"], rtol=0, atol=1e-12)
    assert SmPODiffusion().needs == {"chosen", "rejected", "chosen_score", "rejected_score"}


# ---------------------------------------------------------------- rows


def test_turned_pairs_have_turned_rows_and_nothing_has_a_gradient() -> None:
    given, method = batch(3), SmPODiffusion(score_range=1.0)
    given = replace(given, columns={name: torch.zeros(3) for name in ("chosen_score", "rejected_score")})
    turned = replace(given, media={"chosen": given.media["rejected"], "rejected": given.media["chosen"]})
    here, there = (method.prepare(b, context()) for b in (given, turned))
    turn = torch.tensor([3, 4, 5, 0, 1, 2])
    for name in ("noisy", "timesteps", "target"):
        assert torch.equal(there.inputs[name], here.inputs[name][turn]) and not here.inputs[name].requires_grad
    assert here.groups["chosen"].tolist() == [0, 1, 2] and here.groups["rejected"].tolist() == [3, 4, 5]
    assert here.depends_on == {"policy"}


def test_a_pair_is_inverted_as_it_would_be_alone_under_its_own_noise() -> None:
    given, method, at = batch(3), DDIMInPO(), context()
    rows = method.prepare(given, at)
    media = {name: tensor[2:] for name, tensor in given.media.items()}
    alone = method.prepare(Batch(given.keys[2:], media, {"": given.conditioning[""].take([2])}, {}, given.empty), at)
    assert all(torch.equal(alone.inputs[name], rows.inputs[name][[2, 5]]) for name in rows.inputs)
    assert not torch.equal(rows.inputs["noisy"][0], rows.inputs["noisy"][1])  # the same picture, another record
    assert not torch.equal(rows.inputs["noisy"], DDIMInPO(eta=0.0).prepare(given, at).inputs["noisy"])


@pytest.mark.parametrize("inverter", ["policy", "reference"])
def test_the_role_that_inverts_is_the_one_that_is_named(inverter: Any) -> None:
    at = context()
    method = DDIMInPO(eta=0.0, inverter=inverter)
    rows = method.prepare(batch(), at)
    roles: Any = at.roles
    other = {"policy": "reference", "reference": "policy"}[inverter]
    assert rows.depends_on == {inverter} and roles[inverter].calls == [2] * 5 and roles[other].calls == []
    assert method.roles["reference"].in_prepare == (inverter == "reference")
    remembered = replace(at, networks=at.roles, roles={"policy": None, "reference": None})
    assert torch.equal(method.prepare(batch(), remembered).inputs["noisy"], rows.inputs["noisy"])


def test_every_process_asks_as_often_as_the_one_that_must_go_farthest() -> None:
    far = context(world=World(2, 0, largest=lambda steps: max(steps, 9)))
    near = context()
    method = SmPODiffusion(score_range=1.0)
    rows = [method.prepare(batch(chosen_score=[1.0], rejected_score=[0.0]), at) for at in (near, far)]
    calls: list[Any] = [at.roles["policy"] for at in (near, far)]
    assert [len(role.calls) for role in calls] == [10, 18]
    assert torch.equal(rows[0].inputs["noisy"], rows[1].inputs["noisy"])


def test_an_exact_landing_is_never_at_the_level_of_clean_latents() -> None:
    rows = DDIMInPO(landing="exact").prepare(batch(), context(t=0))
    assert rows.inputs["timesteps"].tolist() == [1, 1]
    assert DDIMInPO(landing="exact", start="one").prepare(batch(), context(t=0)).inputs["timesteps"].tolist() == [0, 0]
    snapped = DDIMInPO(landing="snap").prepare(batch(), context())
    assert snapped.inputs["timesteps"].tolist() == [401, 401] and snapped.columns["timesteps"].tolist() == [401]


def test_noise_of_a_step_is_the_published_one_on_chains_and_none_on_flows() -> None:
    assert [DDIMInPO().inversion_settings(s).eta for s in (CHAIN, V, FLOW)] == [0.1, 0.1, 0.0]
    assert [SmPODiffusion().inversion_settings(s).eta for s in (CHAIN, FLOW)] == [0.0, 0.0]
    with pytest.raises(ConfigError, match=r"^method\.eta: only chains of timesteps have one; set 0, got 0\.1"):
        DDIMInPO(eta=0.1).prepare(batch(), context(0.5, FLOW))


@pytest.mark.parametrize("landing", ["official", "exact", "snap"])
def test_a_network_told_as_velocity_is_inverted_as_the_same_one_told_as_noise(landing: Any) -> None:
    rows = [DDIMInPO(landing=landing).prepare(batch(), context(350, schedule)) for schedule in (CHAIN, V)]
    torch.testing.assert_close(rows[1].inputs["noisy"], rows[0].inputs["noisy"], rtol=0, atol=1e-12)
    timesteps = rows[0].inputs["timesteps"]
    alpha, sigma = CHAIN.coefficients(rows[0].inputs["noisy"], timesteps)
    clean = torch.cat([WINNER, LOSER])
    velocity = alpha * rows[0].inputs["target"] - sigma * clean
    torch.testing.assert_close(rows[1].inputs["target"], velocity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sd", "sd3", "unet3d", "animatediff"])
def test_real_networks_are_inverted_and_clean_latents_lie_between(name: str) -> None:
    family: Any = families.get(name).tiny()
    generator, shape = torch.Generator().manual_seed(0), family.latent_shape(64)
    media = {side: torch.randn((2, *shape), generator=generator) for side in ("chosen", "rejected")}
    given = Batch(
        (("a", 0), ("b", 0)), media, {"": family.encode_prompt(["a", "b"], 64)}, {}, family.encode_prompt([""], 64)
    )
    at = Context(family, {"policy": NetworkRole(family, family.network)}, Random(0))
    rows = DDIMInPO(num_steps=3, landing="exact").prepare(given, at)
    times, clean = rows.inputs["timesteps"], torch.cat(list(media.values()))
    implied = family.schedule.to_clean(rows.inputs["target"], rows.inputs["noisy"], times)
    torch.testing.assert_close(implied, clean, rtol=0, atol=2e-3)
    assert torch.equal(times[:2], times[2:]) and rows.inputs["noisy"].isfinite().all()


# ---------------------------------------------------------------- data and errors


def test_the_range_is_that_of_the_data_s_scores_unless_it_is_given() -> None:
    columns = [{"chosen_score": 0.9, "rejected_score": 0.2}, {"chosen_score": 0.7, "rejected_score": 0.6}]
    settled = SmPODiffusion().settle(columns)
    assert settled.score_range == pytest.approx(0.7)
    assert SmPODiffusion(score_range=RANGE).settle(columns).score_range == RANGE
    assert SmPODiffusion(label_from="preference").settle([]).score_range is None
    with pytest.raises(DataError, match=r"method\.smpo_diffusion\.score_range: 2 scores without two different ones"):
        SmPODiffusion().settle([{"chosen_score": 1.0, "rejected_score": 1.0}])
    with pytest.raises(ConfigError, match=r"method\.smpo_diffusion\.score_range: give it, or settle"):
        SmPODiffusion().prepare(batch(chosen_score=[1.0], rejected_score=[0.0]), context())


@pytest.mark.parametrize(
    ("method", "options", "line"),
    [
        ("ddim_inpo", {"landing": "exat"}, "method.ddim_inpo.landing: must be one of official, exact, snap"),
        ("smpo_diffusion", {"renoise_weights": [1.0]}, "renoise_weights: must be 2 numbers that sum to 1, got [1.0]"),
        ("smpo", {"gamma": 0}, "method.smpo.gamma: must be > 0, got 0"),
        ("inpo", {"inverter": "base"}, "method.inpo.inverter: must be one of policy, reference"),
    ],
)
def test_wrong_options_are_one_line(method: str, options: dict[str, Any], line: str) -> None:
    named = Named.model_validate({method: options})
    with pytest.raises(ConfigError) as error:
        named.validate_with(registry.get(method), f"method.{method}")
    assert line in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_the_defaults_are_the_official_codes() -> None:
    inpo, smpo = DDIMInPO(), SmPODiffusion()
    assert (inpo.num_steps, inpo.landing, inpo.inverter, inpo.renoise_steps) == (10, "official", "policy", 0)
    assert (smpo.num_steps, smpo.eta, smpo.renoise_steps, smpo.gamma) == (10, 0.0, 1, 10.0)
    assert inpo.empty_prompt_prob == smpo.empty_prompt_prob == 0.2
    assert [compose(m.objectives).terms[0].options.beta for m in (inpo, smpo)] == [2000.0, 2000.0]

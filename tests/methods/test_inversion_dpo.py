"""Inversion-DPO: the official numbers, the same in every prediction type, and nothing learnt from a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Conditioning, Context, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods.inversion_dpo import InversionDPO, point_weight
from diffpref.models import registry as families
from diffpref.models.roles import NetworkRole
from diffpref.objectives import inversion_dpo
from diffpref.schedules import DiscreteSchedule, EdmSchedule, FlowSchedule, Schedule
from diffpref.training.forward import ask_role

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
CHAIN = DiscreteSchedule.from_config(SD)
V = DiscreteSchedule.from_config({**SD, "prediction_type": "v_prediction"})
SAMPLE = DiscreteSchedule.from_config({**SD, "prediction_type": "sample"})
NAMES = ["chosen_segment_kl", "rejected_segment_kl"]


def real(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass
class Toy:
    """The toy denoiser of the specification with what it is told added to the noise; remembers its calls."""

    a: Tensor
    b: float
    c: float
    schedule: Schedule = CHAIN
    calls: list[int] = field(default_factory=list)

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        noisy, t = rows.inputs["noisy"], rows.inputs["timesteps"]
        self.calls.append(len(noisy))
        with torch.set_grad_enabled(grad):
            text = rows.conditioning.tensors["text"].to(noisy)
            noise = self.a * noisy + text.view(-1, 1, 1, 1)
            noise = noise + (self.b * t.double() / 1000 + self.c).to(noisy).view(-1, 1, 1, 1)
            if self.schedule.prediction_type == "epsilon":
                return {"prediction": noise}
            alpha, sigma = self.schedule.coefficients(noisy, t)
            clean = (noisy - sigma * noise) / alpha
            return {"prediction": self.schedule.target(clean, noise, t)}


def context(schedule: Schedule = CHAIN, step: int = 1, same: bool = False) -> Context:
    family = SimpleNamespace(schedule=schedule, size_tensors=frozenset())
    a = real(0.30).requires_grad_()
    policy = Toy(a, 0.20, -0.10, schedule)
    reference = Toy(a.detach(), 0.20, -0.10, schedule) if same else Toy(real(0.25), 0.15, -0.05, schedule)
    return Context(family, {"policy": policy, "reference": reference}, Random(0), step=step)


def batch() -> Batch:
    media = {
        "chosen": real([[[[1.0, -0.5], [0.25, 0.75]]]]),
        "rejected": real([[[[-0.8, 0.6], [1.2, -0.4]]]]),
    }
    told = Conditioning({"text": real([[0.3]])})
    return Batch((("record", 0),), media, {"": told}, {}, Conditioning({"text": real([[0.7]])}))


def disagreements(method: InversionDPO, at: Context, given: Batch | None = None) -> tuple[dict[str, Tensor], Rows]:
    """As a step asks: frozen roles first, the policy with gradient."""
    rows = method.prepare(given or batch(), at)
    outputs = {"reference": ask_role(at, "reference", rows), "policy": ask_role(at, "policy", rows, grad=True)}
    return DenoisingLikelihood(at.family.schedule)(NAMES, outputs, rows), rows


def test_the_loss_is_the_official_one() -> None:
    at = context()
    values, rows = disagreements(InversionDPO(num_steps=4), at)
    sums = [values[name].sum().item() for name in NAMES]
    assert sums == pytest.approx([0.0144358184, 0.0172589603], abs=1e-9)
    assert inversion_dpo(**values, beta=200.0).item() == pytest.approx(0.7290589912, abs=1e-9)
    turned = inversion_dpo(**values, beta=200.0, sign="reference_trajectory")
    assert turned.item() == pytest.approx(0.6584804443, abs=1e-9)
    assert rows.inputs["timesteps"].tolist() == [0, 0, 250, 250, 500, 500, 750, 750]
    assert rows.draws == 4 and rows.groups["rejected"].tolist() == [1] and rows.depends_on == {"reference"}
    roles: Any = at.roles
    # guidance asks twice the rows; along the trajectory the reference has answered already
    assert roles["reference"].calls == [4, 4, 4, 4] and roles["policy"].calls == [16]


def test_a_copy_of_the_reference_is_refused_at_the_start_and_would_learn_nothing() -> None:
    with pytest.raises(ConfigError, match="learns nothing where the policy begins as the reference; start from a LoRA"):
        InversionDPO(num_steps=4).prepare(batch(), context(step=0, same=True))
    InversionDPO(num_steps=4).prepare(batch(), context(step=0))
    at = context(same=True)
    loss = inversion_dpo(**disagreements(InversionDPO(num_steps=4), at)[0]).sum()
    loss.backward()
    policy: Any = at.roles["policy"]
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12) and policy.a.grad.item() == 0


def test_gradient_flows_into_the_policy_along_a_trajectory_that_stays() -> None:
    at = context()
    values, rows = disagreements(InversionDPO(num_steps=4), at)
    inversion_dpo(**values, beta=200.0).sum().backward()
    policy: Any = at.roles["policy"]
    assert policy.a.grad.item() != 0 and not any(tensor.requires_grad for tensor in rows.inputs.values())
    assert all(not tensor.requires_grad for tensor in rows.answers["reference"].values())


def test_turned_pairs_turn_the_margin() -> None:
    given = batch()
    turned = replace(given, media={"chosen": given.media["rejected"], "rejected": given.media["chosen"]})
    one, other = (disagreements(InversionDPO(num_steps=4), context(), b)[0] for b in (given, turned))
    torch.testing.assert_close(one[NAMES[0]], other[NAMES[1]], rtol=0, atol=1e-14)
    assert bool((one[NAMES[0]] >= 0).all())


@pytest.mark.parametrize("schedule", [V, SAMPLE], ids=["v", "sample"])
def test_one_network_disagrees_alike_in_every_prediction_type(schedule: Schedule) -> None:
    # without guidance: the same networks, told as noise, as velocity and as clean latents
    method = InversionDPO(num_steps=4, guidance=1.0)
    plain, other = (disagreements(method, context(s))[0] for s in (CHAIN, schedule))
    for name in NAMES:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-9, atol=1e-12)


def test_the_weight_of_a_point_turns_native_predictions_into_noise() -> None:
    t = real([0.2, 0.9])
    assert point_weight(FlowSchedule(), t).tolist() == pytest.approx([1.0, 1.0])
    steps = torch.tensor([10, 948])
    assert point_weight(CHAIN, steps)[1].item() == pytest.approx(1 / CHAIN.level(steps)[1].item())
    assert point_weight(V, steps).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("unconditional", ["zeros", "encode"])
def test_guidance_steers_away_from_what_is_named(unconditional: Any) -> None:
    rows = InversionDPO(num_steps=2, unconditional=unconditional).prepare(batch(), context())
    assert rows.negative is not None and rows.guidance == 2.0
    told = {"zeros": 0.0, "encode": 0.7}[unconditional]
    assert rows.negative.tensors["text"].flatten().tolist() == [told] * 4
    assert InversionDPO(num_steps=2, guidance=1.0).prepare(batch(), context()).negative is None


def test_the_policy_may_invert_and_then_the_reference_is_asked_beside_it() -> None:
    at, method = context(), InversionDPO(num_steps=4, inverter="policy")
    rows = method.prepare(batch(), at)
    assert rows.depends_on == {"policy"} and not rows.answers
    values, _ = disagreements(method, at)
    assert bool((values[NAMES[0]] > 0).all())


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "unet3d"])
def test_real_networks_have_a_trajectory(name: str) -> None:
    family: Any = families.get(name).tiny()
    other: Any = families.get(name).tiny(seed=1)
    generator, shape = torch.Generator().manual_seed(0), family.latent_shape(64)
    media = {side: torch.randn((1, *shape), generator=generator) for side in ("chosen", "rejected")}
    given = Batch((("a", 0),), media, {"": family.encode_prompt(["a"], 64)}, {}, family.encode_prompt([""], 64))
    roles = {
        "policy": NetworkRole(family, other.network, trainable=True),
        "reference": NetworkRole(family, family.network),
    }
    values, rows = disagreements(InversionDPO(num_steps=3), Context(family, roles, Random(0)), given)
    assert all(values[side].shape == (1, 3) and bool((values[side] > 0).all()) for side in NAMES)
    assert rows.negative is not None
    for tensor in family.size_tensors:
        assert torch.equal(rows.negative.tensors[tensor], rows.conditioning.tensors[tensor])


def test_other_kinds_of_schedule_have_no_trajectory() -> None:
    with pytest.raises(ConfigError, match="no trajectory is known for a EdmSchedule; chains and flows have one"):
        InversionDPO(num_steps=2, guidance=1.0).prepare(batch(), context(EdmSchedule()))

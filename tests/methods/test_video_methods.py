"""Video DPO and its kin put before the models what Diffusion-DPO does; what differs is said here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref import objectives
from diffpref.core.contracts import Batch, Conditioning, Context
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods import registry
from diffpref.methods._forward import forward_rows
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.methods.video_dpo import VideoDPO
from diffpref.methods.video_dpo_omniscore import VideoDPOOmniScore
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.schedules import FlowSchedule

NAMES = ("video_dpo", "dense_dpo", "structural_dpo", "video_dpo_omniscore")
SIDES = ("chosen", "rejected")


def batch(*shape: int, size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    media = {name: torch.randn((size, *shape), generator=generator) for name in SIDES}
    told = Conditioning({"prompt_embeds": torch.randn((size, 2, 3), generator=generator)})
    columns = {"segment_label": torch.ones(size, 3)}
    keys = tuple((f"record-{i}", 0) for i in range(size))
    return Batch(keys, media, {"": told}, columns, Conditioning({"prompt_embeds": torch.zeros(1, 2, 3)}))


@pytest.fixture(scope="module")
def family() -> DenoiserFamily:
    return families.get("unet3d").tiny()


@pytest.mark.parametrize("name", NAMES)
def test_with_its_defaults_it_is_diffusion_dpo_without_dropped_captions_to_the_bit(
    family: DenoiserFamily, name: str
) -> None:
    given, context = batch(4, 3, 8, 8), Context(family, {}, Random(0))
    rows, plain = (m.prepare(given, context) for m in (registry.get(name)(), DiffusionDPO(empty_prompt_prob=0.0)))  # type: ignore[call-arg]
    assert all(torch.equal(rows.inputs[one], plain.inputs[one]) for one in plain.inputs)
    assert torch.equal(rows.conditioning.tensors["prompt_embeds"], plain.conditioning.tensors["prompt_embeds"])
    assert {one: index.tolist() for one, index in rows.groups.items()} == {"chosen": [0, 1, 2], "rejected": [3, 4, 5]}
    assert rows.columns.keys() == plain.columns.keys() == {"timesteps", "segment_label"}
    assert torch.equal(rows.inputs["timesteps"][:3], rows.inputs["timesteps"][3:])


def test_flow_dpo_is_a_name_of_video_dpo() -> None:
    assert registry.get("flow_dpo") is VideoDPO and registry.get("videodpo") is VideoDPOOmniScore


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("video_dpo", ("flow_dpo", {"beta": 500.0})),
        ("structural_dpo", ("flow_dpo", {"beta": 500.0})),
        ("dense_dpo", ("dense_dpo", {"beta": 500.0})),
        ("video_dpo_omniscore", ("video_dpo_omniscore", {"beta": 5000.0, "alpha": 1.0})),
    ],
)
def test_a_method_begins_with_its_papers_objective(name: str, objective: Any) -> None:
    assert list(registry.get(name)().objectives) == [objective]


def test_as_in_the_released_code_each_clip_may_have_its_own_timestep_and_noise(family: DenoiserFamily) -> None:
    given, context = batch(4, 3, 8, 8), Context(family, {}, Random(0))
    shared = VideoDPOOmniScore().prepare(given, context)
    rows = VideoDPOOmniScore(share_timestep=False, share_noise=False).prepare(given, context)
    half = VideoDPOOmniScore(share_timestep=False).prepare(given, context)
    times = rows.inputs["timesteps"]
    assert torch.equal(times[:3], shared.inputs["timesteps"][:3]) and (times[3:] != times[:3]).any()
    assert torch.equal(half.inputs["timesteps"], times) and "timesteps" not in rows.columns
    for one, noises in ((rows, ("noise", "noise of the rejected")), (half, ("noise", "noise"))):
        for side, stream, index in zip(SIDES, noises, (slice(3), slice(3, 6)), strict=True):
            noise = Random(0).normal(stream, given.keys, (4, 3, 8, 8))
            assert torch.equal(one.inputs["target"][index], noise)  # epsilon is predicted
            assert torch.equal(one.inputs["noisy"][index], family.add_noise(given.media[side], noise, times[index]))


def test_without_rare_pairs_it_asks_for_no_weights() -> None:
    plain = VideoDPOOmniScore(weigh_rare=False)
    assert plain.needs == {"chosen", "rejected"} and "weight" in VideoDPOOmniScore().needs
    assert plain.objectives == [("video_dpo_omniscore", {"beta": 5000.0, "alpha": 0.0})]


def test_a_noise_offset_is_the_same_in_every_frame(family: DenoiserFamily) -> None:
    given, context = batch(4, 3, 8, 8), Context(family, {}, Random(0))
    rows, plain = (VideoDPO(noise_offset=o).prepare(given, context) for o in (0.5, 0.0))
    moved = rows.inputs["target"] - plain.inputs["target"]
    torch.testing.assert_close(moved, moved[..., :1, :1, :1].expand_as(moved))
    assert len(moved[:3, :, 0, 0, 0].unique()) == 12


@pytest.mark.parametrize("name", NAMES)
def test_swapping_the_clips_of_a_pair_swaps_their_rows(family: DenoiserFamily, name: str) -> None:
    given = batch(4, 3, 8, 8)
    swapped = replace(given, media={"chosen": given.media["rejected"], "rejected": given.media["chosen"]})
    here, there = (registry.get(name)().prepare(one, Context(family, {}, Random(0))) for one in (given, swapped))
    turn = torch.tensor([3, 4, 5, 0, 1, 2])
    assert all(torch.equal(there.inputs[one], here.inputs[one][turn]) for one in here.inputs)


# ---------------------------------------------------------------- the specification's tensors


K = torch.arange(48, dtype=torch.float64)


def clips(*values: Tensor) -> Tensor:
    return torch.stack(values).view(2 * len(values), 2, 3, 2, 2)


def test_the_golden_tensors_of_dense_dpo_are_noised_and_differentiated_as_specified() -> None:
    """Golden 2 of DenseDPO, from the clips to the gradient at the frames' errors."""
    first, second, noise = (
        one.view(2, 2, 3, 2, 2) for one in (torch.sin(0.1 * K), torch.cos(0.13 * K), torch.sin(0.37 * K + 0.5))
    )
    times = torch.tensor([0.25, 0.6], dtype=torch.float64)
    told = Conditioning({"prompt_embeds": torch.zeros(2, 1)})
    groups = {"chosen": (first, noise, noise), "rejected": (second, noise, noise)}
    rows = forward_rows(FlowSchedule(), groups, times, told, {})
    noisy = rows.inputs["noisy"][:2]
    assert noisy.sum().item() == pytest.approx(8.3578868766, abs=1e-9)
    assert noisy[0, 0, 0, 0].tolist() == pytest.approx([0.1198563847, 0.2659572967], abs=1e-9)
    policy = rows.inputs["target"] + 0.05 * clips(torch.sin(K), torch.cos(1.3 * K))
    reference = rows.inputs["target"] + 0.05 * clips(torch.sin(1.1 * K), torch.cos(0.9 * K + 0.2))
    names = [f"{role}_{side}_segment_errors" for role in ("policy", "reference") for side in SIDES]
    likelihood = DenoisingLikelihood(FlowSchedule(), unit_dims=(2,))
    answers = {"policy": {"prediction": policy}, "reference": {"prediction": reference}}
    errors = {name: error.requires_grad_() for name, error in likelihood(names, answers, rows).items()}
    ratios = {
        f"{side}_segment_log_ratio": -0.5
        * (errors[f"policy_{side}_segment_errors"] - errors[f"reference_{side}_segment_errors"])
        for side in SIDES
    }
    labels = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    terms: Any = objectives.dense_dpo(**ratios, segment_label=labels, beta=500.0)
    loss = (terms.losses * terms.weights).sum() / terms.weights.sum()
    assert loss.item() == pytest.approx(0.694326604, abs=1e-9)
    loss.backward()
    gradient = [[40.5735475, -43.8973925, 0.0], [0.0, 0.0, 40.5867020]]
    assert errors["policy_chosen_segment_errors"].grad is not None
    torch.testing.assert_close(
        errors["policy_chosen_segment_errors"].grad, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=1e-6
    )

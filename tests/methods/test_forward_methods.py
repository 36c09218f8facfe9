"""Diffusion-DPO and SFT put before the models what the official code does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from diffpref.config import Named
from diffpref.core.contracts import Batch, Conditioning, Context, Method, RoleSpec
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.methods import registry
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.methods.sft import SFT
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.objectives import compose


def batch(size: int = 4, visit: int = 0, shape: tuple[int, ...] = (4, 8, 8)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    media = {name: torch.randn((size, *shape), generator=generator) for name in ("chosen", "rejected")}
    told = Conditioning({"prompt_embeds": torch.randn((size, 2, 3), generator=generator)})
    empty = Conditioning({"prompt_embeds": torch.full((1, 2, 3), 7.0)})
    columns = {"preference": torch.linspace(0.5, 1, size)}
    return Batch(tuple((f"record-{i}", visit) for i in range(size)), media, {"": told}, columns, empty)


def context(family: DenoiserFamily, seed: int = 0) -> Context:
    return Context(family, {}, Random(seed))


@pytest.fixture(params=["epsilon", "v_prediction"])
def family(request: Any) -> DenoiserFamily:
    return families.get("sd").tiny(prediction_type=request.param)  # type: ignore[call-arg]


def noise_of(family: DenoiserFamily, rows: Any, given: Batch, group: str) -> torch.Tensor:
    """The noise that was mixed into a group, computed back."""
    index = rows.groups[group]
    timesteps = rows.inputs["timesteps"][index]
    alpha, sigma = family.schedule.coefficients(given.media[group], timesteps)
    return (rows.inputs["noisy"][index] - alpha * given.media[group]) / sigma


def large_timesteps(rows: Any, group: str) -> torch.Tensor:
    return rows.inputs["timesteps"][rows.groups[group]] > 100


def test_rows_are_the_chosen_then_the_rejected_noised_at_one_timestep_with_one_noise(family: DenoiserFamily) -> None:
    given = batch()
    rows = DiffusionDPO().prepare(given, context(family))
    assert rows.likelihood == "denoising" and rows.draws == 1
    assert rows.groups["chosen"].tolist() == [0, 1, 2, 3] and rows.groups["rejected"].tolist() == [4, 5, 6, 7]
    assert all(rows.columns[name] is column for name, column in given.columns.items())
    timesteps = rows.inputs["timesteps"]
    assert timesteps.dtype == torch.int64 and torch.equal(timesteps[:4], timesteps[4:])
    noise = Random(0).normal("noise", given.keys, (4, 8, 8))
    for group in ("chosen", "rejected"):
        index = rows.groups[group]
        clean = given.media[group]
        assert torch.equal(rows.inputs["noisy"][index], family.add_noise(clean, noise, timesteps[:4]))
        assert torch.equal(rows.inputs["target"][index], family.target(clean, noise, timesteps[:4]))
    told = rows.conditioning.tensors["prompt_embeds"]
    assert torch.equal(told[:4], told[4:])


def test_swapping_the_images_of_a_pair_swaps_their_rows_and_nothing_else(family: DenoiserFamily) -> None:
    given = batch()
    swapped = replace(given, media={"chosen": given.media["rejected"], "rejected": given.media["chosen"]})
    here, there = (DiffusionDPO().prepare(b, context(family)) for b in (given, swapped))
    turn = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    for name in ("noisy", "timesteps", "target"):
        assert torch.equal(there.inputs[name], here.inputs[name][turn])


def test_a_record_gets_the_same_draws_in_any_batch_and_other_draws_in_another_visit_record_or_run(
    family: DenoiserFamily,
) -> None:
    method, given = DiffusionDPO(empty_prompt_prob=0.5), batch()
    rows = method.prepare(given, context(family))
    part = Batch(
        given.keys[2:3],
        {name: tensor[2:3] for name, tensor in given.media.items()},
        {"": given.conditioning[""].take([2])},
        {},
        given.empty,
    )
    alone = method.prepare(part, context(family))
    for name in ("noisy", "timesteps", "target"):
        assert torch.equal(alone.inputs[name], rows.inputs[name][[2, 6]])
    assert torch.equal(alone.conditioning.tensors["prompt_embeds"], rows.conditioning.tensors["prompt_embeds"][[2, 6]])
    assert torch.equal(method.prepare(given, context(family)).inputs["noisy"], rows.inputs["noisy"])
    for other in (method.prepare(batch(visit=1), context(family)), method.prepare(given, context(family, seed=1))):
        assert not torch.equal(other.inputs["timesteps"], rows.inputs["timesteps"])
        assert not torch.equal(other.inputs["noisy"], rows.inputs["noisy"])
    first, second = rows.inputs["target"][:2] if family.schedule.prediction_type == "epsilon" else (0, 1)
    assert not torch.equal(torch.as_tensor(first), torch.as_tensor(second))


def test_noise_has_mean_0_and_variance_1_and_differs_between_records() -> None:
    family, given = families.get("sd").tiny(), batch(400)
    target = DiffusionDPO().prepare(given, context(family)).inputs["target"][:400]
    count = target.numel()
    assert abs(target.mean().item()) < 4 / math.sqrt(count)
    assert target.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / count))
    gram = target.flatten(1) @ target.flatten(1).T / 256
    assert (gram - torch.eye(400)).abs().max() < 0.6


def test_timesteps_cover_the_chain() -> None:
    family = families.get("sd").tiny()
    timesteps = DiffusionDPO().prepare(batch(2000, shape=(1, 1, 1)), context(family)).inputs["timesteps"][:2000]
    assert 0 <= timesteps.min() < 5 and 995 < timesteps.max() <= 999
    counts = torch.histc(timesteps.float(), bins=10, min=0, max=1000)
    assert (counts - 200).abs().max() < 4 * math.sqrt(200 * 0.9)


def test_without_sharing_only_the_timestep_is_one(family: DenoiserFamily) -> None:
    given = batch(40)
    rows = DiffusionDPO(share_noise=False).prepare(given, context(family))
    shared = DiffusionDPO().prepare(given, context(family))
    assert torch.equal(rows.inputs["timesteps"], shared.inputs["timesteps"])
    assert torch.equal(rows.inputs["noisy"][:40], shared.inputs["noisy"][:40])
    assert not torch.equal(rows.inputs["noisy"][40:], shared.inputs["noisy"][40:])
    far = large_timesteps(rows, "chosen")
    first, second = (noise_of(family, rows, given, group)[far].flatten() for group in ("chosen", "rejected"))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.05


def test_the_turbo_rule_is_four_timesteps_under_zero_terminal_snr(family: DenoiserFamily) -> None:
    given = batch(100)
    rows = DiffusionDPO(timestep_rule="turbo").prepare(given, context(family))
    timesteps = rows.inputs["timesteps"]
    assert set(timesteps.tolist()) == {249, 499, 749, 999}
    uniform = DiffusionDPO().prepare(given, context(family)).inputs["timesteps"]
    assert torch.equal(timesteps, 250 * (uniform % 4) + 249)
    last = timesteps[:100] == 999
    noise = Random(0).normal("noise", given.keys, (4, 8, 8))
    assert torch.equal(rows.inputs["noisy"][:100][last], noise[last])  # nothing of the image is left
    schedule = family.schedule.rescaled()
    assert torch.equal(rows.inputs["noisy"][:100], schedule.add_noise(given.media["chosen"], noise, timesteps[:100]))
    assert torch.equal(rows.inputs["target"][:100], schedule.target(given.media["chosen"], noise, timesteps[:100]))


def test_the_refiner_rule_is_the_first_200(family: DenoiserFamily) -> None:
    given = batch(300, shape=(1, 2, 2))
    timesteps = DiffusionDPO(timestep_rule="refiner").prepare(given, context(family)).inputs["timesteps"]
    uniform = DiffusionDPO().prepare(given, context(family)).inputs["timesteps"]
    assert torch.equal(timesteps, uniform % 200) and timesteps.max() > 190


@pytest.mark.parametrize("name", ["diffusion_dpo", "sft"])
def test_the_caption_is_dropped_for_all_rows_of_a_record_at_once_in_the_stated_share(name: str) -> None:
    family, given = families.get("sd").tiny(), batch(1000, shape=(1, 1, 1))
    method = registry.get(name)
    told = method().prepare(given, context(family)).conditioning.tensors["prompt_embeds"]
    dropped = (told == 7.0).all(dim=(1, 2))
    sides = dropped.view(-1, 1000)
    assert (sides == sides[0]).all()
    assert sides[0].float().mean().item() == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 1000))
    assert torch.equal(told[:1000][~sides[0]], given.conditioning[""].tensors["prompt_embeds"][~sides[0]])
    for share, expected in ((0.0, 0.0), (1.0, 1.0)):
        rows = method(empty_prompt_prob=share).prepare(given, context(family))
        assert (rows.conditioning.tensors["prompt_embeds"] == 7.0).float().mean() == expected


def test_noise_offset_is_one_number_a_channel_shared_and_part_of_the_target() -> None:
    family, given = families.get("sd").tiny(), batch(30)
    plain = DiffusionDPO().prepare(given, context(family))
    rows = DiffusionDPO(noise_offset=0.5).prepare(given, context(family))
    offset = rows.inputs["target"] - plain.inputs["target"]
    torch.testing.assert_close(offset, offset[:, :, :1, :1].expand_as(offset), rtol=0, atol=1e-5)
    torch.testing.assert_close(offset[:30], offset[30:])
    assert offset[:30, :, 0, 0].std().item() == pytest.approx(0.5, rel=0.25)
    far = large_timesteps(rows, "rejected")
    mixed = noise_of(family, rows, given, "rejected")[far]
    torch.testing.assert_close(mixed, rows.inputs["target"][30:][far], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("share_noise", [True, False])
def test_input_perturbation_is_shared_in_the_pair_and_not_in_the_target(share_noise: bool) -> None:
    family, given = families.get("sd").tiny(), batch(30)
    plain = DiffusionDPO(share_noise=share_noise).prepare(given, context(family))
    rows = DiffusionDPO(share_noise=share_noise, input_perturbation=0.1).prepare(given, context(family))
    assert torch.equal(rows.inputs["target"], plain.inputs["target"])
    far = large_timesteps(rows, "chosen")
    extra = [noise_of(family, rows, given, g)[far] - noise_of(family, plain, given, g)[far] for g in rows.groups]
    torch.testing.assert_close(extra[0], extra[1], rtol=0, atol=1e-3)
    assert extra[0].std().item() == pytest.approx(0.1, rel=0.1)


def test_sft_shows_the_chosen_images_alone_with_dpos_draws(family: DenoiserFamily) -> None:
    given = batch()
    rows, pair = (method().prepare(given, context(family)) for method in (SFT, DiffusionDPO))
    assert list(rows.groups) == ["chosen"] and rows.groups["chosen"].tolist() == [0, 1, 2, 3]
    for name in ("noisy", "timesteps", "target"):
        assert torch.equal(rows.inputs[name], pair.inputs[name][:4])


@pytest.mark.parametrize("name", list(registry))
def test_every_method_is_a_frozen_config_whose_defaults_fit_together(name: str) -> None:
    method = registry.get(name)()
    assert isinstance(method, Method)
    composition = compose(method.objectives)
    accepted = method.needs | getattr(method, "accepts", frozenset()) | getattr(method, "makes", frozenset())
    assert composition.groups <= accepted
    assert composition.roles <= {"policy", *method.roles}
    assert method.source and method.evidence in ("official", "paper", "secondary", "memory", "ours")
    with pytest.raises(ValidationError):
        method.anything = 1


def test_the_defaults_are_the_official_codes() -> None:
    method = DiffusionDPO()
    assert method.objectives == [("dpo", {"beta": 5000.0})]
    assert method.roles == {"reference": RoleSpec("auto")} and method.needs == {"chosen", "rejected"}
    assert (method.share_noise, method.empty_prompt_prob, method.timestep_rule) == (True, 0.2, "uniform")
    assert compose(SFT().objectives).roles == {"policy"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"empty_prompt_prob": 1.5}, "method.diffusion_dpo.empty_prompt_prob: must be <= 1, got 1.5"),
        ({"timestep_rule": "turbos"}, "method.diffusion_dpo.timestep_rule: must be one of uniform, turbo, refiner"),
        ({"noise_ofset": 1}, "method.diffusion_dpo.noise_ofset: unknown key; did you mean 'noise_offset'?"),
    ],
)
def test_wrong_options_are_one_line_with_a_path(options: dict[str, Any], line: str) -> None:
    named = Named.model_validate({"diffusion_dpo": options})
    with pytest.raises(ConfigError) as error:
        named.validate_with(registry.get(named.name), "method.diffusion_dpo")
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_an_unknown_method_is_answered_with_the_closest_name() -> None:
    assert registry.get("diffusion-dpo") is DiffusionDPO
    with pytest.raises(ConfigError, match="unknown method 'difusion_dpo'; did you mean 'diffusion_dpo'"):
        registry.get("difusion_dpo")


def test_a_dropped_caption_is_the_encoded_empty_one_or_zeros_and_sizes_stay_told() -> None:
    family, given = families.get("sdxl").tiny(), batch()
    told = given.conditioning[""].tensors["prompt_embeds"]
    sizes = torch.arange(24.0).view(4, 6)
    shared = Conditioning({"prompt_embeds": told, "time_ids": sizes})
    empty = Conditioning({"prompt_embeds": torch.full((1, 2, 3), 7.0), "time_ids": torch.full((1, 6), -1.0)})
    given = replace(given, conditioning={"": shared}, empty=empty)
    for dropped_as, expected in (("encode", 7.0), ("zeros", 0.0)):
        for method in (DiffusionDPO, SFT):
            rows = method(empty_prompt_prob=1.0, dropped_as=dropped_as).prepare(given, context(family))
            seen = rows.conditioning.tensors
            assert torch.equal(seen["prompt_embeds"], torch.full_like(seen["prompt_embeds"], expected))
            assert torch.equal(seen["time_ids"][:4], sizes)


def test_weights_of_a_timestep_are_those_of_the_schedule_that_noised() -> None:
    from diffpref.likelihood import DenoisingLikelihood
    from diffpref.likelihood.weighting import kappa

    family = families.get("sd").tiny()
    rows = DiffusionDPO(timestep_rule="turbo").prepare(batch(), context(family))
    prediction = {"policy": {"prediction": torch.zeros_like(rows.inputs["target"])}}
    likelihood = DenoisingLikelihood(family.schedule, "min_snr", 0.1)
    names = ["policy_chosen_logps", "policy_chosen_errors"]
    values = likelihood(names, prediction, rows)
    timesteps = rows.inputs["timesteps"][:4]
    expected = kappa("min_snr", family.schedule.rescaled(), timesteps, snr_gamma=0.1).float()
    assert torch.allclose(values[names[0]], -0.5 * expected * values[names[1]])
    assert not torch.allclose(expected, kappa("min_snr", family.schedule, timesteps, snr_gamma=0.1).float())

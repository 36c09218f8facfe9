"""The plain forward process puts whatever samples there are before the models, noised alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffpref.core.contracts import Batch, Conditioning, Context, Rows
from diffpref.core.randomness import Random
from diffpref.methods.denoising import Denoising
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily


@pytest.fixture(scope="module")
def family() -> DenoiserFamily:
    return families.get("sd").tiny()


def batch(*groups: str, size: int = 3, length: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shapes = {group: (size, length, 4, 8, 8) if group == "list" else (size, 4, 8, 8) for group in groups}
    media = {group: torch.randn(shape, generator=generator) for group, shape in shapes.items()}
    told = Conditioning({"prompt_embeds": torch.arange(size).float().view(size, 1, 1)})
    empty = Conditioning({"prompt_embeds": torch.full((1, 1, 1), -1.0)})
    return Batch(tuple((f"record-{i}", 0) for i in range(size)), media, {"": told}, {}, empty)


def prepare(family: DenoiserFamily, given: Batch, **options: object) -> Rows:
    return Denoising(**options).prepare(given, Context(family, {}, Random(0)))


def noise(family: DenoiserFamily, rows: Rows, clean: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The noise of rows, computed back."""
    alpha, sigma = family.schedule.coefficients(clean, rows.inputs["timesteps"][index])
    return (rows.inputs["noisy"][index] - alpha * clean) / sigma


def test_a_pair_is_noised_as_diffusion_dpo_does(family: DenoiserFamily) -> None:
    given = batch("chosen", "rejected")
    ours, published = prepare(family, given), DiffusionDPO().prepare(given, Context(family, {}, Random(0)))
    assert all(torch.equal(ours.inputs[name], published.inputs[name]) for name in published.inputs)
    assert all(torch.equal(ours.groups[name], published.groups[name]) for name in ("chosen", "rejected"))
    assert torch.equal(ours.conditioning.tensors["prompt_embeds"], published.conditioning.tensors["prompt_embeds"])


def test_a_list_shares_timestep_noise_and_caption_and_skips_who_is_absent(family: DenoiserFamily) -> None:
    there = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    given = replace(batch("list"), columns={"list_mask": there})
    rows = prepare(family, given, empty_prompt_prob=0.0)
    index = torch.arange(12).view(3, 4)
    assert torch.equal(rows.groups["list"], torch.where(there > 0, index, -1))
    assert torch.equal(rows.inputs["timesteps"].view(3, 4), rows.inputs["timesteps"].view(3, 4)[:, :1].expand(3, 4))
    assert rows.conditioning.tensors["prompt_embeds"].flatten().tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    drawn = noise(family, rows, given.media["list"].flatten(0, 1), torch.arange(12)).view(3, 4, -1)
    torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn), rtol=0, atol=1e-3)
    torch.testing.assert_close(drawn[:, 0], Random(0).normal("noise", given.keys, (256,)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("groups", [("chosen", "rejected"), ("", "mismatched"), ("list",)])
def test_independent_noise_differs_between_all_samples(family: DenoiserFamily, groups: tuple[str, ...]) -> None:
    given = batch(*groups)
    rows = prepare(family, given, noise="independent")
    clean = torch.cat([media.flatten(0, 1) if group == "list" else media for group, media in given.media.items()])
    drawn = noise(family, rows, clean, torch.arange(len(clean))).flatten(1)
    near = torch.corrcoef(drawn).fill_diagonal_(0).abs().max()
    assert near < 0.3 and drawn.std().item() == pytest.approx(1, abs=0.1)
    again = prepare(family, replace(given, media=dict(reversed(given.media.items()))), noise="independent")
    for group in groups:  # a sample's noise is its own, wherever its group stands
        one, other = (r.inputs["target"][r.groups[group].flatten()] for r in (rows, again))
        assert torch.equal(one, other)


def test_draws_lie_one_after_another_and_the_first_is_that_of_a_single_draw(family: DenoiserFamily) -> None:
    given = batch("chosen", "rejected")
    one, three = prepare(family, given), prepare(family, given, draws=3)
    assert (three.draws, len(three.inputs["noisy"]), len(three.conditioning)) == (3, 18, 18)
    assert torch.equal(three.inputs["noisy"][:6], one.inputs["noisy"])
    assert torch.equal(three.groups["rejected"], one.groups["rejected"])
    times = three.inputs["timesteps"].view(3, 2, 3)
    assert torch.equal(times[:, 0], times[:, 1]) and len(set(times[:, 0].flatten().tolist())) == 9


def test_the_mismatched_group_gets_no_gradient_and_sees_the_record_s_prompt(family: DenoiserFamily) -> None:
    rows = prepare(family, batch("", "mismatched"), empty_prompt_prob=0.0)
    assert rows.no_grad == {"mismatched"} and prepare(family, batch("")).no_grad == frozenset()
    told = rows.conditioning.tensors["prompt_embeds"].flatten()
    assert torch.equal(told[rows.groups[""]], told[rows.groups["mismatched"]])

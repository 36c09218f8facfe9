"""SePPO with losers that are given and no flipping is Diffusion-DPO; its anchor may be averaged over draws."""

from __future__ import annotations

import torch

from diffpref.core.contracts import Batch, Conditioning, Context, Snapshots
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.methods.seppo import SePPO
from diffpref.models import registry as families
from diffpref.objectives import dpo, seppo

NAMES = ("chosen_log_ratio", "rejected_log_ratio")


def batch(size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    media = {group: torch.randn((size, 4, 8, 8), generator=generator) for group in ("chosen", "rejected")}
    told = Conditioning({"prompt_embeds": torch.randn((size, 7, 16), generator=generator)})
    empty = Conditioning({"prompt_embeds": torch.zeros((1, 7, 16))})
    return Batch(tuple((f"record-{i}", 0) for i in range(size)), media, {"": told}, {}, empty)


def answers(target: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Something like what a network says, in float64."""
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"prediction": target.double() + 0.1 * noise}


def test_with_given_losers_and_sign_1_it_is_diffusion_dpo() -> None:
    family, given = families.get("sd").tiny(), batch()
    context = Context(family, {}, Random(0))
    ours, theirs = SePPO(snapshot_every=30).prepare(given, context), DiffusionDPO().prepare(given, context)
    assert all(torch.equal(ours.inputs[name], theirs.inputs[name]) for name in theirs.inputs)
    assert torch.equal(ours.conditioning.tensors["prompt_embeds"], theirs.conditioning.tensors["prompt_embeds"])
    assert ours.depends_on == {"reference"} and theirs.depends_on == frozenset()
    likelihood = DenoisingLikelihood(family.schedule)
    outputs = {role: answers(theirs.inputs["target"], seed) for seed, role in enumerate(("policy", "reference"))}
    values = [likelihood(NAMES, outputs, rows) for rows in (ours, theirs)]
    expected = dpo(**values[1], beta=2000.0)
    never = seppo(**values[0], beta=2000.0, aaf="none")
    assert expected.dtype == torch.float64
    torch.testing.assert_close(never.losses, expected, rtol=0, atol=1e-6)
    assert never.metrics["flip_rate"].sum() == 0
    flipped = seppo(**values[0], beta=2000.0)
    ahead = values[0]["chosen_log_ratio"] > 0
    assert 0 < ahead.sum() < len(ahead), "both cases are to be seen"
    torch.testing.assert_close(flipped.losses[ahead], expected[ahead], rtol=0, atol=1e-6)
    assert torch.equal(flipped.metrics["flip_rate"], (~ahead).double())


def test_policy_and_reference_alike_leave_no_margin() -> None:
    family, given = families.get("sd").tiny(), batch()
    rows = SePPO(snapshot_every=30).prepare(given, Context(family, {}, Random(0)))
    same = answers(rows.inputs["target"], 0)
    values = DenoisingLikelihood(family.schedule)(NAMES, {"policy": same, "reference": same}, rows)
    assert all(not value.any() for value in values.values())
    torch.testing.assert_close(seppo(**values).losses, torch.full((4,), 2.0).log().double())


def test_the_anchor_is_averaged_over_draws() -> None:
    family, given = families.get("sd").tiny(), batch()
    rows = SePPO(snapshot_every=30, draws=3).prepare(given, Context(family, {}, Random(0)))
    outputs = {role: answers(rows.inputs["target"], seed) for seed, role in enumerate(("policy", "reference"))}
    likelihood = DenoisingLikelihood(family.schedule)
    whole = likelihood(["chosen_log_ratio"], outputs, rows)["chosen_log_ratio"]
    parts = likelihood(["chosen_token_log_ratio"], outputs, rows)["chosen_token_log_ratio"]
    torch.testing.assert_close(whole, parts.mean(dim=1), rtol=0, atol=1e-12)
    assert bool(((parts > 0) != (whole > 0).unsqueeze(1)).any()), "a single draw would have said otherwise"


def test_its_snapshots_are_the_published_ones_with_the_interval_that_is_given() -> None:
    role = SePPO(snapshot_every=30).roles["reference"]
    assert role.update == Snapshots(30, "uniform", 7) and role.in_prepare
    assert SePPO(snapshot_every=5, draw="latest", num_snapshots=2).roles["reference"].update == Snapshots(
        5, "latest", 2
    )

"""Roles that move, peers, and methods that remember: a method from this file for each rule, trained and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.contracts import StatefulMethod
from diffpref.core.errors import CheckpointError, ConfigError, FrozenRoleError
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints, newest_checkpoint
from diffpref.training.log import read_metrics
from diffpref.training.plan import make_plan

Keys = Callable[..., dict[str, Any]]
LORA, FULL = {"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"}
BOTH = pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])


NAMES = ("toy_seppo", "toy_dro", "toy_nft", "toy_ofs")
CASES = [*((name, LORA) for name in NAMES), ("toy_ofs", FULL), ("toy_seppo", FULL)]

pytestmark = pytest.mark.usefixtures("toy_methods")


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].detach().double().reshape(-1) for name in sorted(tensors)]).clone()


def policy(trainer: Trainer) -> Tensor:
    return flat(trainer.plan.adapter.state(trainer.bare))


def role(trainer: Trainer, name: str) -> Tensor:
    return flat(trainer.moving.placed[name].weights())


def exact(trainer: Trainer) -> list[dict[str, Any]]:
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(trainer.output / "metrics.jsonl")
    ]


def parts(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    found = newest_checkpoint(trainer.output)
    assert found is not None
    return {name: found.part(name) for name in ("policy", "optimizer", *trainer.moving.PARTS) if name in found}


@pytest.mark.parametrize(("name", "adapter"), CASES, ids=[f"{n}, {a['kind']}" for n, a in CASES])
def test_row_01_a_method_with_moving_roles_and_an_average_resumes_bit_by_bit(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any], name: str
) -> None:
    shape = {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "keep": 9, "ema": {"decay": 0.9, "warmup": False}}
    common = {"adapter": adapter, "method": name, "optim": {"learning_rate": 1e-3}, "training": shape}
    straight = Trainer(build_recipe(recipe_keys(output=str(tmp_path / "straight"), **common)))
    rows = list(straight.steps())
    assert len(rows) == 4 and all(math.isfinite(value) for row in rows for value in row.values())
    broken = build_recipe(recipe_keys(output=str(tmp_path / "broken"), **common))
    for metrics in Trainer(broken).steps():
        if metrics["step"] == 3:
            break
    resumed = Trainer(broken)
    resumed.setup()
    assert resumed.step == 3
    resumed.fit()
    assert exact(resumed) == exact(straight)
    first, second = parts(straight), parts(resumed)
    assert {"roles", "ema"} <= first.keys() == second.keys()
    for part in first:
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part]), part


def run(keys: dict[str, Any]) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    for _ in trainer.steps():
        pass
    return trainer


# ---------------------------------------------------------------- rules and peers in a run


def test_a_lagging_role_is_the_policy_of_two_updates_ago_and_makes_the_targets(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method="toy_dro", training__steps=4, optim={"learning_rate": 1e-3})))
    seen = [(policy(trainer), role(trainer, "behaviour")) for _ in trainer.steps()]
    (one, first), (two, second), (_, third), (four, fourth) = seen
    assert torch.equal(second, two) and torch.equal(third, two) and torch.equal(fourth, four)
    assert not torch.equal(one, first) and trainer.plan.specs["behaviour"].in_prepare
    assert "behaviour" not in trainer.plan.composition.roles and trainer.moving.digests.keys() == {"reference"}


def test_the_average_that_a_method_compares_with_follows_the_policy(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method="toy_nft", optim={"learning_rate": 1e-3})))
    trainer.setup()
    expected = role(trainer, "behaviour")
    assert torch.equal(expected, policy(trainer))
    rows = []
    for row in trainer.steps():
        expected = 0.5 * expected + 0.5 * policy(trainer)
        torch.testing.assert_close(role(trainer, "behaviour"), expected, rtol=1e-6, atol=1e-8)
        rows.append(row)
    both = [row["errors/chosen"] + row["errors/rejected"] for row in rows]  # the loss where policy and behaviour agree
    assert rows[0]["loss"] == pytest.approx(both[0], rel=1e-6) and rows[2]["loss"] != pytest.approx(both[2], rel=1e-6)


def test_the_reference_of_seppo_is_one_of_at_least_three_earlier_policies(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method="toy_seppo", training__steps=6, optim={"learning_rate": 1e-3})))
    trainer.setup()
    earlier, drawn = [policy(trainer)], []
    for _ in trainer.steps():
        earlier.append(policy(trainer))
        drawn.append(next(k for k, then in enumerate(earlier) if torch.equal(then, role(trainer, "reference"))))
    assert len(set(drawn)) >= 3 and all(index <= update for update, index in enumerate(drawn, 1))
    assert trainer.moving.digests == {}


def test_a_recipe_moves_the_reference_of_any_method(recipe_keys: Keys) -> None:
    rules = {"reference": {"update": {"every": {"updates": 1}}}}
    trainer = Trainer(build_recipe(recipe_keys(roles=rules)))
    for row in trainer.steps():
        assert row["rewards/margins"] == 0.0  # the reference is the policy before every update
        assert torch.equal(role(trainer, "reference"), policy(trainer))


@BOTH
def test_a_peer_and_the_policy_are_two_runs_where_nothing_ties_them(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    common = {"adapter": adapter, "training": {"steps": 3, "batch_size": 2, "accumulation": 2}}
    two = run(
        recipe_keys(
            **common,
            output=str(tmp_path / "two"),
            method="toy_ofs",
            objective={"toy_ofs": {"alpha": 0.0}},
            optim={"learning_rate": 1e-3},
        )
    )
    expected = []
    for rate in (1e-3, 5e-4):
        keys = recipe_keys(**common, objective={"dpo": {"beta": 1000.0}}, optim={"learning_rate": rate})
        expected.append(policy(run({**keys, "output": str(tmp_path / str(rate))})))
    swapped = int(two.moving.memory["swaps"]) % 2  # the slower one may be ahead
    torch.testing.assert_close(policy(two), expected[swapped], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(role(two, "peer"), expected[1 - swapped], rtol=1e-6, atol=1e-7)
    assert "grad_norm/peer" in read_metrics(two.output / "metrics.jsonl")[0]


def test_every_process_asks_the_roles_in_one_order(recipe_keys: Keys) -> None:
    """Sets of names have another order in each process; where networks are sharded, two roles would trade weights."""
    assert make_plan(build_recipe(recipe_keys(method="toy_ofs"))).asked == ["peer", "reference", "policy"]


def test_replayed_updates_read_whole_predictions_alike(recipe_keys: Keys, tmp_path: Path) -> None:
    found = []
    for how in ("auto", "always"):
        shape = {"steps": 2, "batch_size": 2, "accumulation": 2, "replay": how}
        keys = recipe_keys(output=str(tmp_path / how), method="toy_nft", training=shape, optim={"learning_rate": 1e-3})
        found.append(policy(run(keys)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_replayed_updates_train_a_peer_alike(recipe_keys: Keys, tmp_path: Path) -> None:
    found = []
    for how in ("auto", "always"):
        shape = {"steps": 2, "batch_size": 2, "accumulation": 2, "replay": how}
        trainer = run(recipe_keys(output=str(tmp_path / how), method="toy_ofs", training=shape))
        found.append((policy(trainer), role(trainer, "peer")))
    for joint, replayed in zip(*found, strict=True):
        torch.testing.assert_close(replayed, joint, rtol=1e-5, atol=1e-6)


@BOTH
def test_an_exchange_swaps_weights_moments_and_rates(recipe_keys: Keys, adapter: dict[str, Any]) -> None:
    keys = recipe_keys(adapter=adapter, method="toy_ofs", optim={"learning_rate": 1e-3})
    trainer = Trainer(build_recipe(keys))
    next(trainer.steps())
    optimizer = trainer.updater.optimizer
    ours, theirs = trainer.updater.trained, trainer.updater.peers["peer"]

    def moments(parameters: Any) -> Tensor:
        return torch.cat([optimizer.state[p]["exp_avg"].double().reshape(-1) for p in parameters]).clone()

    before = policy(trainer), role(trainer, "peer"), moments(ours), moments(theirs)
    assert not torch.equal(before[0], before[1])
    trainer.moving.exchange("policy", "peer")
    after = policy(trainer), role(trainer, "peer"), moments(ours), moments(theirs)
    assert all(torch.equal(a, b) for a, b in zip(after, (before[1], before[0], before[3], before[2]), strict=True))
    assert {group["role"]: group["lr_scale"] for group in optimizer.param_groups} == {"policy": 0.5, "peer": 1.0}
    with pytest.raises(ConfigError, match="exchange: role 'reference' is not trained"):
        trainer.moving.exchange("policy", "reference")


def test_a_method_remembers_what_it_returned(recipe_keys: Keys) -> None:
    keys = recipe_keys(method={"toy_ofs": {"swap_always": True}}, training__steps=5)
    trainer = Trainer(build_recipe(keys))
    assert isinstance(trainer.plan.method, StatefulMethod)
    seen = [(dict(trainer.moving.memory), row["ofs/fast"]) for row in trainer.steps()]
    assert [int(memory["swaps"]) for memory, _ in seen] == [0, 1, 1, 2, 2]
    assert [float(memory["losses"][0]) for memory, _ in seen] == [seen[0][1], 0.0, seen[2][1], 0.0, seen[4][1]]
    assert trainer.updater.context.state is trainer.moving.memory


def test_a_round_moves_what_waits_for_it_and_counts_across_checkpoints(recipe_keys: Keys) -> None:
    keys = recipe_keys(roles={"reference": {"update": "round"}}, training__checkpoint_every=1)
    trainer = Trainer(build_recipe(keys))
    steps = trainer.steps()
    start = next(steps) and role(trainer, "reference")
    assert not torch.equal(start, policy(trainer)) and trainer.updater.context.round == 0
    trainer.next_round()
    assert torch.equal(role(trainer, "reference"), policy(trainer)) and trainer.updater.context.round == 1
    moved = role(trainer, "reference")
    next(steps)
    again = Trainer(build_recipe(keys))
    again.setup()
    assert again.updater.context.round == 1 and torch.equal(role(again, "reference"), moved)


# ---------------------------------------------------------------- what must not move


def test_a_reference_that_moved_stops_the_run_and_nothing_is_saved(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(training__checkpoint_every=2)))
    steps = trainer.steps()
    next(steps)
    with torch.no_grad():
        trainer.bare.conv_in.weight[0, 0, 0, 0] += 1e-3
    message = r"role 'reference' must stay as it is, but its weights changed during the run \(digest \w{8} -> \w{8}\)"
    with pytest.raises(FrozenRoleError, match=message):
        next(steps)
    assert list_checkpoints(trainer.output) == [] and not (trainer.output / "lora").exists()


def test_a_reference_with_gradients_or_dropout_stops_the_run(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys()))
    trainer.setup()
    trainer.bare.train()
    with pytest.raises(FrozenRoleError, match="it is in training mode, in which dropout is on"):
        trainer.save_checkpoint()
    trainer.bare.eval().conv_in.weight.requires_grad_(True)
    with pytest.raises(FrozenRoleError, match="role 'reference' must stay as it is, but it gets gradients"):
        trainer.save_checkpoint()


def test_a_run_does_not_go_on_against_another_reference(recipe_keys: Keys, tiny_sdxl: Path, tmp_path: Path) -> None:
    import shutil

    from diffusers import UNet2DConditionModel

    shutil.copytree(tiny_sdxl, tmp_path / "model")
    keys = recipe_keys(model__path=str(tmp_path / "model"), data__cache=None)
    was = run(keys).moving.digests["reference"]
    found = newest_checkpoint(Path(keys["output"]))
    assert found is not None and found.counters["digests"] == {"reference": was}
    network = UNet2DConditionModel.from_pretrained(tmp_path / "model/unet")
    with torch.no_grad():
        network.conv_in.bias.add_(1e-6)
    network.save_pretrained(tmp_path / "model/unet")
    longer = Trainer(build_recipe({**keys, "training": {**keys["training"], "steps": 5}}))
    with pytest.raises(CheckpointError, match=r"role 'reference' has other weights than when this run began"):
        longer.setup()


def test_a_role_that_nothing_asks_is_not_placed_and_not_set_in_vain(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method="sft", adapter={"kind": "full"}, training__steps=1)))
    list(trainer.steps())
    assert trainer.moving.placed == {} and trainer.roles.keys() == {"policy"}
    line = r"^roles\.reference: neither the objective nor method 'sft' asks anything of it; leave it out"
    with pytest.raises(ConfigError, match=line):
        Trainer(build_recipe(recipe_keys(method="sft", roles={"reference": {"source": "copy"}})))
    with pytest.raises(ConfigError, match=r"^roles\.referense: the method has no such role; did you mean 'reference'"):
        Trainer(build_recipe(recipe_keys(roles={"referense": {"source": "copy"}})))


def test_a_run_starts_from_the_lora_of_another_and_compares_with_it(recipe_keys: Keys, tmp_path: Path) -> None:
    lora = {"kind": "lora", "rank": 4, "alpha": 16.0}
    before = run(recipe_keys(output=str(tmp_path / "one"), adapter=lora, optim={"learning_rate": 1e-2}))
    keys = recipe_keys(adapter={"kind": "lora", "rank": 4, "start": str(tmp_path / "one/lora")})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    assert torch.equal(policy(trainer), policy(before)) and torch.equal(role(trainer, "reference"), policy(before))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-7) and rows[0]["rewards/margins"] == 0.0
    assert rows[-1]["rewards/margins"] != 0.0 and torch.equal(role(trainer, "reference"), policy(before))
    with pytest.raises(ConfigError, match=r"^roles\.reference\.source: 'base' would leave out"):
        Trainer(
            build_recipe({**keys, "output": str(tmp_path / "x"), "roles": {"reference": {"source": "base"}}})
        ).setup()
    other = {**keys, "output": str(tmp_path / "other"), "adapter": {"kind": "lora"}}
    against = run({**other, "roles": {"reference": {"path": str(tmp_path / "one/lora")}}})  # a reference of its own
    assert read_metrics(against.output / "metrics.jsonl")[0]["rewards/margins"] != 0.0

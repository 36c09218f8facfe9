"""Roles that move, peers, and methods that remember: a method from this file for each rule, trained and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref import methods, objectives
from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Context, Ema, Every, RoleSpec, Rows, Snapshots, Tensors
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.objectives import objective
from diffpref.training import Trainer
from diffpref.training.checkpoints import newest_checkpoint
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
LORA, FULL = {"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"}
BOTH = pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])


class ToySePPO(DiffusionDPO):
    """Winners against what an earlier state of the policy makes of them; that state is the reference too."""

    draw: str = "uniform"

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        rule = Snapshots(every=1, draw=self.draw)  # type: ignore[arg-type]
        return {"reference": RoleSpec("copy", rule, in_prepare=True)}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("toy_seppo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        rows = super().prepare(batch, context)
        guess = context.roles["reference"](rows)["prediction"]
        size = len(batch)
        made = batch.media["chosen"] - 0.1 * (guess[:size] - rows.inputs["target"][:size])
        seen = Batch(batch.keys, {**batch.media, "rejected": made}, batch.conditioning, batch.columns, batch.empty)
        return super().prepare(seen, context)


class ToyDRO(DiffusionDPO):
    """The losers' target is what a lagged copy of the policy predicts there."""

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec(), "behaviour": RoleSpec("copy", Every(2), in_prepare=True)}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("toy_dro", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        rows = super().prepare(batch, context)
        target = rows.inputs["target"].clone()
        losers = rows.groups["rejected"]
        target[losers] = context.roles["behaviour"](rows)["prediction"][losers]
        return Rows(
            rows.likelihood,
            {**rows.inputs, "target": target},
            rows.conditioning,
            rows.groups,
            rows.columns,
            depends_on=frozenset({"behaviour"}),
        )


class ToyNFT(DiffusionDPO):
    """Towards the winners and away from the losers, each measured from a lagging average of the policy."""

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec(), "behaviour": RoleSpec("copy", Ema(decay=0.5))}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("toy_nft", {})]


class ToyOFS(DiffusionDPO):
    """A fast and a slow adapter; every other update the one with the lower loss becomes the fast one."""

    swap_always: bool = False

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        peer = RoleSpec("copy", trained=True, learning_rate_scale=0.5)
        return {"reference": RoleSpec(), "peer": peer}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("toy_ofs", {})]

    def after_step(self, context: Context) -> Tensors:
        zero = torch.zeros(2, dtype=torch.float64)
        seen = context.state.get("losses", zero).cpu().double()
        seen = seen + torch.tensor([context.metrics["ofs/fast"], context.metrics["ofs/slow"]], dtype=torch.float64)
        swaps = context.state.get("swaps", torch.tensor(0)).cpu()
        if context.step % 2 == 0:
            if self.swap_always or seen[1] < seen[0]:
                assert context.exchange is not None
                context.exchange("policy", "peer")
                swaps = swaps + 1
            seen = zero
        return {"losses": seen, "swaps": swaps}


def toy_seppo(
    *,
    policy_chosen_errors: Tensor,
    reference_chosen_errors: Tensor,
    policy_rejected_errors: Tensor,
    reference_rejected_errors: Tensor,
) -> Tensor:
    """SePPO: the loser is pushed away where the policy beats the reference on the winner, else pulled closer."""
    won = policy_chosen_errors - reference_chosen_errors
    sign = torch.where(won.detach() <= 0, 1.0, -1.0)
    lost = policy_rejected_errors - reference_rejected_errors
    return -torch.nn.functional.logsigmoid(-1000.0 * (won - sign * lost))


def toy_dro(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor) -> Tensor:
    """Diffusion-DRO's hinge."""
    return (0.001 - 2 * (chosen_log_ratio - rejected_log_ratio)).clamp(min=0)


def toy_nft(
    *,
    policy_chosen_errors: Tensor,
    behaviour_chosen_errors: Tensor,
    policy_rejected_errors: Tensor,
    behaviour_rejected_errors: Tensor,
) -> Tensor:
    """DiffusionNFT's idea in errors: relative to the behaviour, winners down and losers up."""
    down = policy_chosen_errors - behaviour_chosen_errors
    return down - 0.5 * (policy_rejected_errors - behaviour_rejected_errors)


def toy_ofs(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    peer_chosen_log_ratio: Tensor,
    peer_rejected_log_ratio: Tensor,
    beta: float = 1000.0,
    alpha: float = 0.1,
) -> Any:
    """OFS-DPO: each module learns from the pairs; the fast one runs away from the slow one, which chases it."""
    from diffpref.core.contracts import Terms

    def loss(margin: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(beta * margin)

    fast, slow = chosen_log_ratio - rejected_log_ratio, peer_chosen_log_ratio - peer_rejected_log_ratio
    chase = loss(fast - slow.detach()) - loss(fast.detach() - slow)
    total = loss(fast) + loss(slow) + alpha * chase
    return Terms(total, metrics={"ofs/fast": loss(fast).detach(), "ofs/slow": loss(slow).detach()})


TOYS = {"toy_seppo": ToySePPO, "toy_dro": ToyDRO, "toy_nft": ToyNFT, "toy_ofs": ToyOFS}
LOSSES = {"toy_seppo": toy_seppo, "toy_dro": toy_dro, "toy_nft": toy_nft, "toy_ofs": toy_ofs}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register methods and objectives as any package would, and take them out again."""
    for name in TOYS:
        objective(name, kind="pairwise", source="ours", evidence="ours")(LOSSES[name])
        methods.registry.register(name)(TOYS[name])
    yield
    for registry in (objectives.registry, methods.registry):
        for name in TOYS:
            registry._things.pop(name, None)
            registry._origins.pop(name, None)


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


CASES = [*((name, LORA) for name in TOYS), ("toy_ofs", FULL), ("toy_seppo", FULL)]


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

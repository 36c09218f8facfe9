"""Methods with roles that move, and their objectives: one for each rule, small, with the real one's structure.

Registered as any package would; also imported by processes that several of which train together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffpref import methods, objectives
from diffpref.core.contracts import Batch, Context, Ema, Every, RoleSpec, Rows, Snapshots, Tensors, Terms
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.objectives import objective

__all__ = ["TOYS", "registered"]


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
    beta: float = 2000.0,
) -> Tensor:
    """SePPO: the loser is pushed away where the policy beats the reference on the winner, else pulled closer."""
    won = policy_chosen_errors - reference_chosen_errors
    sign = torch.where(won.detach() <= 0, 1.0, -1.0)
    lost = policy_rejected_errors - reference_rejected_errors
    return -torch.nn.functional.logsigmoid(-0.5 * beta * (won - sign * lost))


def toy_dro(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor) -> Tensor:
    """Diffusion-DRO's hinge."""
    return (0.001 - 2 * (chosen_log_ratio - rejected_log_ratio)).clamp(min=0)


def toy_nft(
    *,
    policy_chosen_errors: Tensor,
    policy_rejected_errors: Tensor,
    behaviour_rejected_errors: Tensor,
    policy_rejected_prediction: Tensor,
    behaviour_rejected_prediction: Tensor,
) -> Tensor:
    """DiffusionNFT at beta 1 and reward 1 for winners, 0 for losers, without its weights: towards what the policy says
    of the winner, and of the loser towards the answer as far on the other side of the behaviour, 2 old - new.

    |2 old - new - target|^2 = 2 |old - target|^2 - |new - target|^2 + 2 |new - old|^2.
    """
    apart = (policy_rejected_prediction - behaviour_rejected_prediction).square().flatten(1).mean(dim=1)
    return policy_chosen_errors + 2 * behaviour_rejected_errors - policy_rejected_errors + 2 * apart


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

    def loss(margin: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(beta * margin)

    fast, slow = chosen_log_ratio - rejected_log_ratio, peer_chosen_log_ratio - peer_rejected_log_ratio
    chase = loss(fast - slow.detach()) - loss(fast.detach() - slow)
    total = loss(fast) + loss(slow) + alpha * chase
    return Terms(total, metrics={"ofs/fast": loss(fast).detach(), "ofs/slow": loss(slow).detach()})


TOYS = {"toy_seppo": ToySePPO, "toy_dro": ToyDRO, "toy_nft": ToyNFT, "toy_ofs": ToyOFS}
LOSSES = {"toy_seppo": toy_seppo, "toy_dro": toy_dro, "toy_nft": toy_nft, "toy_ofs": toy_ofs}


@contextmanager
def registered() -> Iterator[None]:
    """Register methods and objectives for the duration of the context."""
    for name in TOYS:
        objective(name, kind="pairwise", source="ours", evidence="ours")(LOSSES[name])
        methods.registry.register(name)(TOYS[name])
    try:
        yield
    finally:
        for registry in (objectives.registry, methods.registry):
            for name in TOYS:
                registry._things.pop(name, None)
                registry._origins.pop(name, None)

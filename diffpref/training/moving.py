"""What lives beside the trained policy: roles that move or must not, peers, its average, the memory of the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.config import Ema
from diffpref.core.contracts import Context, Method, StatefulMethod, Tensors
from diffpref.core.errors import CheckpointError, ConfigError, FrozenRoleError
from diffpref.models.adapters import POLICY, Adapter, Held
from diffpref.models.family import Network
from diffpref.models.roles import PlacedRole
from diffpref.training.average import PolicyAverage
from diffpref.training.movers import make_mover

__all__ = ["Moving"]


class Moving:
    """Keeps everything that is not the policy in step with it.

    Args:
        placed: the roles of the run.
        adapter: what is trained.
        network: the policy's, unwrapped.
        optimizer: over policy and peers; each group is called by its role under ``role``.
        method: whose `after_step` is called, if it has one.
        context: what that is told.
        average: whether and how the policy is averaged.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("roles", "ema", "method_state")

    def __init__(
        self,
        placed: Mapping[str, PlacedRole],
        adapter: Adapter,
        network: Network,
        optimizer: torch.optim.Optimizer,
        method: Method,
        context: Context,
        average: Ema,
    ) -> None:
        self.placed, self.adapter, self.network, self.optimizer = placed, adapter, network, optimizer
        self.method, self.context = method, context
        self.memory: dict[str, Tensor] = {}
        policy = adapter.state(network)
        self.device = next(iter(policy.values())).device
        self.average = PolicyAverage(average, policy) if average.decay is not None else None
        self.movers = {
            name: make_mover(name, role.spec, role.weights(), policy, context.random)
            for name, role in placed.items()
            if role.spec.moves
        }
        self.round = 0
        self.digests = self._digests()

    # ------------------------------------------------------------ after an update

    def after_update(self, done: int, metrics: Mapping[str, float]) -> None:
        """Move what is due after ``done`` updates: roles, the average, then the method's own memory."""
        for mover in self.movers.values():
            mover.after_update(done)
        if self.average is not None:
            self.average.after_update(done)
        if isinstance(self.method, StatefulMethod):
            context = replace(
                self.context,
                step=done,
                round=self.round,
                state=dict(self.memory),
                metrics=metrics,
                exchange=self.exchange,
            )
            self._remember(self.method.after_step(context))

    def _remember(self, state: Tensors) -> None:
        kept = {name: tensor.detach().to(self.device, copy=True) for name, tensor in state.items()}
        self.memory.clear()  # in place: it is the state of the context that every step is told
        self.memory.update(kept)

    def next_round(self) -> None:
        """End a round of data and training: roles whose rule says so become the policy."""
        self.round += 1
        for mover in self.movers.values():
            mover.next_round()

    def exchange(self, first: str, second: str) -> None:
        """Swap the weights of two trained roles, with their optimiser state and learning rates.

        Raises:
            ConfigError: one of them is not trained.
        """
        sides = [self._trained(name) for name in (first, second)]
        for ours, theirs in zip(*sides, strict=True):
            kept = ours.detach().clone()
            with torch.no_grad():
                ours.copy_(theirs)
                theirs.copy_(kept)
            state = self.optimizer.state
            moments = state.pop(ours, None), state.pop(theirs, None)
            for parameter, found in zip((theirs, ours), moments, strict=True):
                if found is not None:
                    state[parameter] = found
        groups = [g for g in self.optimizer.param_groups if g["role"] in (first, second)]
        scales = {group["role"]: group["lr_scale"] for group in groups}
        for group in groups:
            group["lr_scale"] = scales[second if group["role"] == first else first]

    def _trained(self, name: str) -> list[Tensor]:
        if name == "policy":
            return list(self.adapter.parameters(Held(self.network, POLICY)))
        if name not in self.placed or not self.placed[name].spec.trained:
            raise ConfigError(f"exchange: role '{name}' is not trained")
        return list(self.placed[name].parameters)

    # ------------------------------------------------------------ what must not move

    def check_frozen(self) -> None:
        """Compare every frozen role with what it was when the run began.

        Raises:
            FrozenRoleError: its weights are others, or it would get gradients or dropout.
        """
        for name, was in self.digests.items():
            role = self.placed[name]
            if complaint := role.complaint():
                raise FrozenRoleError(f"role '{name}' must stay as it is, but {complaint}")
            if (now := role.digest()) != was:
                raise FrozenRoleError(
                    f"role '{name}' must stay as it is, but its weights changed during the run (digest {was[:8]} ->"
                    f" {now[:8]}); what was trained against it is not saved"
                )

    def _digests(self) -> dict[str, str]:
        return {name: role.digest() for name, role in sorted(self.placed.items()) if role.frozen}

    # ------------------------------------------------------------ checkpoints

    def parts(self) -> dict[str, Tensors]:
        """Return what a checkpoint must hold besides policy and optimiser: part -> tensors by name."""
        roles = {f"{name}/{key}": t for name, mover in self.movers.items() for key, t in mover.state().items()}
        for name, role in self.placed.items():
            if role.spec.trained:
                roles.update({f"{name}/{key}": tensor for key, tensor in role.weights().items()})
        average = self.average.tensors if self.average is not None else {}
        found: list[Tensors] = [roles, average, self.memory]
        return {name: tensors for name, tensors in zip(self.PARTS, found, strict=True) if tensors}

    def counters(self) -> dict[str, Any]:
        """Return what a checkpoint must hold that is no tensor."""
        return {"round": self.round, "digests": self.digests}

    def load(self, parts: Mapping[str, Tensors], counters: Mapping[str, Any]) -> None:
        """Put back what `parts` and `counters` returned.

        Raises:
            CheckpointError: the checkpoint was written with other roles, or a frozen role has other weights now.
        """
        for name, was in counters.get("digests", {}).items():
            if self.digests.get(name) != was:
                raise CheckpointError(
                    f"role '{name}' has other weights than when this run began (digest {was[:8]} ->"
                    f" {self.digests.get(name, 'none')[:8]}); was the model at its path replaced?"
                )
        by_role: dict[str, dict[str, Tensor]] = {}
        for key, tensor in parts.get("roles", {}).items():
            name, _, rest = key.partition("/")
            by_role.setdefault(name, {})[rest] = tensor
        own = {*self.movers, *(name for name, role in self.placed.items() if role.spec.trained)}
        if own != by_role.keys():
            raise CheckpointError(f"holds the roles {sorted(by_role)}, this run has {sorted(own)}")
        for name, state in by_role.items():
            if name in self.movers:
                self.movers[name].load(state)
            else:
                held = self.placed[name].held
                self.adapter.load_state(held.network, state, held.name)
        if self.average is not None:
            self.average.load(parts.get("ema", {}))
        self._remember(parts.get("method_state", {}))
        self.round = int(counters.get("round", 0))

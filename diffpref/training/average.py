"""An exponential moving average of the policy, beside it: it changes nothing in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from diffpref.config import Ema
from diffpref.core.contracts import Tensors
from diffpref.core.errors import CheckpointError

__all__ = ["PolicyAverage", "copy_over", "move_towards"]


class PolicyAverage:
    """average <- d * average + (1 - d) * policy every so many updates, in float32.

    Args:
        settings: decay and how often.
        policy: what is trained, by name: the tensors themselves.
    """

    def __init__(self, settings: Ema, policy: Tensors) -> None:
        self.settings, self.policy = settings, policy
        self.tensors = {
            name: (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).clone()
            for name, tensor in policy.items()
        }

    def decay_at(self, move: int) -> float:
        """Return d at a move, counted from 0."""
        decay = self.settings.decay or 0.0
        return min(decay, (1 + move) / (10 + move)) if self.settings.warmup else decay

    def after_update(self, done: int) -> None:
        """Move, if it is time, after ``done`` updates."""
        if done % self.settings.every == 0:
            move_towards(self.tensors, self.policy, 1 - self.decay_at(done // self.settings.every - 1))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what a checkpoint holds.

        Raises:
            CheckpointError: it is the average of other weights.
        """
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in self.tensors.items()}:
            raise CheckpointError("the average of the policy does not fit its weights")
        copy_over(self.tensors, tensors)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the policy the averaged weights for the duration of the context; afterwards its own, bit by bit."""
        own = {name: tensor.detach().clone() for name, tensor in self.policy.items()}
        copy_over(self.policy, self.tensors)
        try:
            yield
        finally:
            copy_over(self.policy, own)


@torch.no_grad()
def copy_over(targets: Tensors, sources: Tensors) -> None:
    """Write sources into targets of the same names, in place."""
    for name, target in targets.items():
        target.copy_(sources[name])


@torch.no_grad()
def move_towards(targets: Tensors, sources: Tensors, share: float) -> None:
    """Do target <- target + share * (source - target) in place; a share of 1 copies the bits. Counters are copied."""
    moving = [name for name, target in targets.items() if target.is_floating_point() and share < 1]
    if moving:
        given = [sources[name].detach().to(targets[name]) for name in moving]
        torch._foreach_lerp_([targets[name] for name in moving], given, share)
    copy_over({name: target for name, target in targets.items() if name not in set(moving)}, sources)

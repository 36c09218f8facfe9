"""One update of the weights: forward and backward of each micro-batch, reduce, guard, clip, step."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from diffpref.config import Recipe
from diffpref.core.contracts import Context, Likelihood, Tensors, World
from diffpref.core.errors import CheckpointError, DataError
from diffpref.training.feed import Feed, Items
from diffpref.training.forward import Forward, Watcher, judge, record_timesteps, run_forward
from diffpref.training.gradients import average_gradients, gradient_norm
from diffpref.training.guards import NonFiniteGuard, Refused, describe
from diffpref.training.launch import keep_gradients_local, largest_of_all
from diffpref.training.learning_rate import learning_rate
from diffpref.training.metrics import update_metrics
from diffpref.training.plan import Plan
from diffpref.training.replay import ask, derivatives, gathered, replayed
from diffpref.training.start import check_start

__all__ = ["Updater"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Whole:
    """An update after its backward passes.

    Args:
        sums: (terms,) over all its records.
        weights: (terms,).
        seen: what the objectives said, of this process's micro-batches, or once of all records.
        shared: whether ``seen`` is of all processes already.
    """

    sums: Tensor
    weights: Tensor
    seen: Sequence[Forward]
    shared: bool


@dataclass(frozen=True)
class Updater:
    """Does updates.

    Args:
        recipe: steps, batch size, accumulation, optimiser.
        plan: method and objectives.
        feed: which records an update trains on, and their batches.
        context: family, roles, randomness, processes.
        likelihood: turns answers into what the objectives name.
        network: the policy as it is wrapped for the processes.
        trained: its parameters that change.
        optimizer: over them.
        scaler: of the loss.
        accelerator: of this process.
        state: the objectives' running statistics, changed once an update.
        guard: against what is not finite.
        flags: what was learnt about the objective while training.
        peers: parameters of the other trained roles; each role's gradient is clipped apart.
    """

    recipe: Recipe
    plan: Plan
    feed: Feed
    context: Context
    likelihood: Likelihood
    network: nn.Module
    trained: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    accelerator: Accelerator
    guard: NonFiniteGuard
    state: dict[str, Tensor] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    peers: Mapping[str, Sequence[nn.Parameter]] = field(default_factory=dict)

    @property
    def world(self) -> World:
        """The processes that train together."""
        return self.context.world

    def __call__(self, step: int, watcher: Watcher | None = None) -> dict[str, float]:
        """Do update ``step`` (from 0) and return its metrics. One that is left out has no ``loss`` among them.

        Args:
            step: number of the update.
            watcher: looks at it.

        Raises:
            NonFiniteError: a loss or the gradient is not finite on any process; no parameter was changed on any.
            DataError: the weights of its records are all 0.
        """
        try:
            metrics = self._update(step, watcher)
        except Refused as refused:
            self.optimizer.zero_grad(set_to_none=True)
            return {**self.guard.refuse(refused, step), "lr": self._rate(step)}
        return {**metrics, **self.guard.passed()}

    def _rate(self, step: int) -> float:
        return learning_rate(self.recipe.optim, step, self.recipe.training.steps)

    def _update(self, step: int, watcher: Watcher | None) -> dict[str, float]:
        training, world = self.recipe.training, self.world
        total = training.batch_size * training.accumulation * world.size
        told = self.feed.begin(step, replace(self.context, step=step))
        items = self.feed.items(step)
        parts = [items[start : start + training.batch_size] for start in range(0, len(items), training.batch_size)]
        done = None if self._couples(total) else self._accumulate(parts, step, total, watcher)
        whole = done or self._replay(parts, step, watcher)
        if watcher is not None:
            watcher.judged(whole.seen)
        gradient = self._step(step, whole)
        self.state.update(whole.seen[0].state)
        coefficients = self._coefficients(whole.sums)
        loss = (coefficients * whole.sums / whole.weights).sum()
        place = self.context.family.place
        reduce = (lambda summed: summed) if whole.shared else self._reduce
        metrics = update_metrics(whole.seen, loss, coefficients, place, reduce)
        return {**metrics, **gradient, **told, "lr": self._rate(step)}

    def load_state(self, state: Tensors) -> None:
        """Put back the objectives' running statistics.

        Raises:
            CheckpointError: they are those of other objectives.
        """
        if state.keys() != self.state.keys():
            raise CheckpointError(f"holds the statistics {sorted(state)}, the objective keeps {sorted(self.state)}")
        self.state.update({name: tensor.to(self.accelerator.device) for name, tensor in state.items()})

    def _couples(self, total: int) -> bool:
        """Whether the objectives must see all records of an update at once, and these do not fit into one forward."""
        training = self.recipe.training
        if training.replay == "always" or training.max_rows or self.flags:
            return True
        composition = self.plan.composition
        return bool(composition.coupling or composition.initial_state()) and total > training.batch_size

    def _accumulate(
        self, parts: Sequence[Items], step: int, total: int, watcher: Watcher | None = None
    ) -> Whole | None:
        """Forward and backward of each micro-batch; None when terms turn out to be weighted differently."""
        done: list[Forward] = []
        for part in parts:
            done.append(self._micro_batch(part, step, total, len(done), watcher))
        sums, weights = self._reduce(torch.stack([torch.stack([f.sums, f.weights]) for f in done]).sum(dim=0))
        self._check_weights(weights, step)
        if len(parts) > 1:
            if bool((weights != weights[0]).any()):
                # what each micro-batch was divided by cannot be mended for all terms at once
                logger.info("the objective's terms differ in their weights: updates are replayed from now on")
                self.flags.add("replay")
                self.optimizer.zero_grad(set_to_none=True)
                return None
            self._rescale(weights[0], total)
        self._check_start(done, step)
        return Whole(sums, weights, done, shared=False)

    def _replay(self, parts: Sequence[Items], step: int, watcher: Watcher | None = None) -> Whole:
        """Compute the objectives once on all records of the update; see `diffpref.training.replay`."""
        context = replace(self.context, step=step)
        gather = self.accelerator.gather if self.world.size > 1 else lambda tensor: tensor
        asked = ask(self.plan, self.likelihood, map(self.feed.batch, parts), context, watcher)
        values, columns = gathered(asked, gather)
        values = {name: value.requires_grad_(value.is_floating_point()) for name, value in values.items()}
        forward = judge(self.plan, values, columns, self.state)
        times = [t for question in asked if (t := record_timesteps(question.rows)) is not None]
        if len(times) == len(asked):
            forward = replace(forward, timesteps=gather(torch.cat(times)))
        keys = [key for question in asked for key in question.keys]
        forward = replace(forward, keys=tuple(gather_object(keys) if self.world.size > 1 else keys))
        if not bool(forward.finite.all() & forward.sums.detach().isfinite().all()):
            raise Refused("loss", describe(forward, self._terms()))  # the same on every process
        self._check_weights(forward.weights, step)
        self._check_start([forward], step)
        loss = (self._coefficients(forward.weights) * forward.sums / forward.weights).sum()
        gradients = derivatives(loss, values)
        first = self.world.rank * sum(len(question.keys) for question in asked)
        for question in asked:
            own = {name: gradient[first : first + len(question.keys)] for name, gradient in gradients.items()}
            first += len(question.keys)
            shares = replayed(self.plan, self.likelihood, question, context, own, self.recipe.training.max_rows)
            for share in shares:
                last = question is asked[-1] and share is shares[-1]
                with nullcontext() if last else keep_gradients_local(self.accelerator, self.network):
                    self.scaler.scale(share() * self.world.size).backward()  # DDP averages gradients
        read = {name: gradient for name, gradient in gradients.items() if name in forward.read}
        done = replace(forward, sums=forward.sums.detach(), gradients=read)
        return Whole(done.sums, done.weights, [done], shared=True)

    def _micro_batch(self, items: Items, step: int, total: int, number: int, watcher: Watcher | None) -> Forward:
        context = replace(self.context, step=step)
        last = number == self.recipe.training.accumulation - 1
        with nullcontext() if last else keep_gradients_local(self.accelerator, self.network):
            batch = self.feed.batch(items)
            forward = run_forward(self.plan, self.likelihood, batch, context, self.state, watcher)
            weights = self._check_loss(forward, number)
            # Each term is divided by its weights over all processes and micro-batches. Those of later ones are not
            # known yet: then by the number of records, mended in `_rescale`. DDP averages gradients, hence world.size.
            divisor = weights if self.recipe.training.accumulation == 1 else torch.full_like(weights, total)
            loss = (self._coefficients(weights) * forward.sums / divisor).sum() * self.world.size
            for value in forward.read.values():
                if value.requires_grad:
                    value.retain_grad()  # what the loss asks of each record: the backward pass brings it for nothing
            self.scaler.scale(loss).backward()
        gradients = {name: value.grad for name, value in forward.read.items() if value.grad is not None}
        read = {name: value.detach() for name, value in forward.read.items()}
        return replace(forward, sums=forward.sums.detach(), read=read, gradients=gradients)

    def _coefficients(self, like: Tensor) -> Tensor:
        return like.new_tensor([term.coefficient for term in self.plan.composition.terms])

    def _terms(self) -> list[str]:
        return [term.spec.name for term in self.plan.composition.terms]

    def _check_loss(self, forward: Forward, number: int) -> Tensor:
        """Return the sums of weights over all processes.

        Raises:
            Refused: a loss is not finite on any process.
        """
        finite = forward.finite.all() & forward.sums.detach().isfinite().all()
        reduced = self._reduce(torch.cat([finite.to(forward.weights).reshape(1), forward.weights]))
        if reduced[0].item() < self.world.size:
            raise Refused("loss", self._gathered(describe(forward, self._terms(), self.world.rank, number)))
        return reduced[1:]

    def _gathered(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return gather_object(records) if self.world.size > 1 else records

    def _check_start(self, done: Sequence[Forward], step: int) -> None:
        if step == 0:
            check_start(self.plan, [f.log_ratios for f in done], partial(largest_of_all, self.accelerator))

    def _check_weights(self, weights: Tensor, step: int) -> None:
        if bool((weights == 0).any()):
            raise DataError(f"update {step + 1}: the weights of its records are all 0; give more records or weights")

    def _rescale(self, weight: Tensor, total: int) -> None:
        """Divide by the sum of weights instead of the number of records, with which it agrees for weights of 1."""
        if bool(weight != total):
            for parameter in chain(self.trained, *self.peers.values()):
                if parameter.grad is not None:
                    parameter.grad.mul_(total / weight)

    def _step(self, step: int, whole: Whole) -> dict[str, float]:
        """Clip the gradient and update; return what the log says of it.

        Raises:
            Refused: the gradient is not finite on any process.
        """
        if self.peers and self.world.size > 1:
            average_gradients(self.accelerator, self.network, chain(*self.peers.values()))
        self.scaler.unscale_(self.optimizer)
        norms = {name: gradient_norm(own) for name, own in self._clipped_apart().items()}
        norm = torch.stack(list(norms.values())).max()
        finite = self._reduce(norm.isfinite().float()).item() == self.world.size
        size = norm.item()
        # Under fp16 an overflow is expected now and then: the scaler leaves the update out and lowers its scale.
        if not finite and self.scaler.get_scale() <= 1:
            self.scaler.update(self.scaler.get_scale())  # forget that this gradient was unscaled
            terms, rank = self._terms(), self.world.rank
            records = [one for k, forward in enumerate(whole.seen) for one in describe(forward, terms, rank, k)]
            raise Refused("gradient", records if whole.shared else self._gathered(records), size, self._bad())
        for role, own in self._clipped_apart().items():
            nn.utils.clip_grads_with_norm_(own, self.recipe.optim.max_grad_norm, norms[role])
        for group in self.optimizer.param_groups:  # only now: a refused update leaves the optimiser as it was
            group["lr"] = self._rate(step) * group["lr_scale"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(size):
            return {"grad_overflow": 1.0}
        return {"grad_norm" if role == "policy" else f"grad_norm/{role}": one.item() for role, one in norms.items()}

    def _clipped_apart(self) -> dict[str, Sequence[nn.Parameter]]:
        return {"policy": self.trained, **self.peers}

    def _bad(self) -> list[str]:
        """Return the names of the parameters whose gradient is not finite."""
        named = self.network.named_parameters()
        return [name for name, p in named if p.grad is not None and not bool(p.grad.isfinite().all())]

    def _reduce(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum") if self.world.size > 1 else values

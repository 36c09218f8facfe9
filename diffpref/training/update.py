"""One update of the weights: forward and backward of each micro-batch, reduce, guard, clip, step."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffpref.config import Recipe
from diffpref.core.contracts import Batch, Context, Likelihood, Tensors, World
from diffpref.core.errors import DataError, NonFiniteError
from diffpref.training.batches import PairBatches
from diffpref.training.forward import Forward, judge, run_forward
from diffpref.training.gradients import clip_gradients
from diffpref.training.launch import keep_gradients_local, largest_of_all
from diffpref.training.learning_rate import learning_rate
from diffpref.training.plan import Plan
from diffpref.training.replay import ask, derivatives, gathered, replayed
from diffpref.training.start import check_start

__all__ = ["Updater"]

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, int]
Whole: TypeAlias = tuple[Tensor, Tensor, dict[str, float], Tensors]
"""Of an update: sums and weights of each term, metrics, the objectives' statistics after it."""


@dataclass(frozen=True)
class Updater:
    """Does updates.

    Args:
        recipe: steps, batch size, accumulation, optimiser.
        plan: method and objectives.
        batches: the data.
        context: family, roles, randomness, processes.
        likelihood: turns answers into what the objectives name.
        network: the policy as it is wrapped for the processes.
        trained: its parameters that change.
        optimizer: over them.
        scaler: of the loss.
        accelerator: of this process.
        state: the objectives' running statistics, changed once an update.
        flags: what was learnt about the objective while training.
    """

    recipe: Recipe
    plan: Plan
    batches: PairBatches
    context: Context
    likelihood: Likelihood
    network: nn.Module
    trained: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    accelerator: Accelerator
    state: dict[str, Tensor] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    @property
    def world(self) -> World:
        """The processes that train together."""
        return self.context.world

    def __call__(self, step: int) -> dict[str, float]:
        """Do update ``step`` (from 0) and return its metrics.

        Raises:
            NonFiniteError: a loss or the gradient is not finite on any process; no parameter was changed on any.
            DataError: the weights of its records are all 0.
        """
        training, world = self.recipe.training, self.world
        total = training.batch_size * training.accumulation * world.size
        items = self.batches.sampler.batch(step, total, rank=world.rank, num_ranks=world.size)
        rate = learning_rate(self.recipe.optim, step, training.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = [items[start : start + training.batch_size] for start in range(0, len(items), training.batch_size)]
        done = None if self._couples(total) else self._accumulate(parts, step, total)
        sums, weights, metrics, state = done or self._replay(parts, step)
        gradient = self._step(step)
        self.state.update(state)
        loss = (self._coefficients(sums) * sums / weights).sum().item()
        return {"loss": loss, **metrics, **gradient, "lr": rate}

    def _couples(self, total: int) -> bool:
        """Whether the objectives must see all records of an update at once, and these do not fit into one forward."""
        if self.recipe.training.replay == "always" or self.flags:
            return True
        composition = self.plan.composition
        return bool(composition.coupling or composition.initial_state()) and total > self.recipe.training.batch_size

    def _accumulate(self, parts: Sequence[Sequence[tuple[int, int]]], step: int, total: int) -> Whole | None:
        """Forward and backward of each micro-batch; None when terms turn out to be weighted differently."""
        done = [self._micro_batch(part, step, total, last=part is parts[-1]) for part in parts]
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
        return sums, weights, self._mean_metrics([f.metrics for f in done]), done[0].state

    def _replay(self, parts: Sequence[Sequence[tuple[int, int]]], step: int) -> Whole:
        """Compute the objectives once on all records of the update; see `diffpref.training.replay`."""
        context = replace(self.context, step=step)
        asked = ask(self.plan, self.likelihood, map(self.batches.batch, parts), context)
        values, columns = gathered(asked, self.accelerator.gather if self.world.size > 1 else lambda tensor: tensor)
        values = {name: value.requires_grad_(value.is_floating_point()) for name, value in values.items()}
        forward = judge(self.plan, values, columns, self.state)
        first = self.world.rank * sum(map(len, parts))
        self._refuse_non_finite(forward, [key for part in parts for key in self.batches.keys(part)], first, step)
        self._check_weights(forward.weights, step)
        self._check_start([forward], step)
        loss = (self._coefficients(forward.weights) * forward.sums / forward.weights).sum()
        gradients = derivatives(loss, values)
        for part, question in zip(parts, asked, strict=True):
            own = {name: gradient[first : first + len(part)] for name, gradient in gradients.items()}
            first += len(part)
            with nullcontext() if question is asked[-1] else keep_gradients_local(self.accelerator, self.network):
                share = replayed(self.likelihood, question, context, own) * self.world.size  # DDP averages gradients
                self.scaler.scale(share).backward()
        return forward.sums.detach(), forward.weights, self._mean_metrics([forward.metrics]), forward.state

    def _micro_batch(self, items: Sequence[tuple[int, int]], step: int, total: int, last: bool) -> Forward:
        batch = self.batches.batch(items)
        with nullcontext() if last else keep_gradients_local(self.accelerator, self.network):
            forward = run_forward(self.plan, self.likelihood, batch, replace(self.context, step=step), self.state)
            weights = self._guard(forward, batch, step)
            # Each term is divided by its weights over all processes and micro-batches. Those of later ones are not
            # known yet: then by the number of records, mended in `_rescale`. DDP averages gradients, hence world.size.
            divisor = weights if self.recipe.training.accumulation == 1 else torch.full_like(weights, total)
            loss = (self._coefficients(weights) * forward.sums / divisor).sum() * self.world.size
            self.scaler.scale(loss).backward()
        return replace(forward, sums=forward.sums.detach())

    def _coefficients(self, like: Tensor) -> Tensor:
        return like.new_tensor([term.coefficient for term in self.plan.composition.terms])

    def _guard(self, forward: Forward, batch: Batch, step: int) -> Tensor:
        """Return the sums of weights over all processes; stop on each of them when a loss is not finite on any."""
        finite = forward.finite.all() & forward.sums.detach().isfinite().all()
        reduced = self._reduce(torch.cat([finite.to(forward.weights).reshape(1), forward.weights]))
        if reduced[0].item() < self.world.size:
            self._refuse(forward.finite, batch.keys, step)
        return reduced[1:]

    def _refuse_non_finite(self, forward: Forward, keys: Sequence[Key], first: int, step: int) -> None:
        """Stop when a loss of all records is not finite; ``keys`` are this process's, from number ``first``."""
        if not bool(forward.finite.all() & forward.sums.detach().isfinite().all()):
            self._refuse(forward.finite[first : first + len(keys)], keys, step)

    def _refuse(self, finite: Tensor, keys: Sequence[Key], step: int) -> None:
        bad = [key for key, good in zip(keys, finite.tolist(), strict=True) if not good]
        shown = ", ".join(f"{record} (visit {visit})" for record, visit in bad[:8]) or "on another process"
        raise NonFiniteError(f"update {step + 1}: the loss is not finite; nothing was changed. Records: {shown}")

    def _check_start(self, done: Sequence[Forward], step: int) -> None:
        if step == 0:
            check_start(self.plan, [f.log_ratios for f in done], partial(largest_of_all, self.accelerator))

    def _check_weights(self, weights: Tensor, step: int) -> None:
        if bool((weights == 0).any()):
            raise DataError(f"update {step + 1}: the weights of its records are all 0; give more records or weights")

    def _rescale(self, weight: Tensor, total: int) -> None:
        """Divide by the sum of weights instead of the number of records, with which it agrees for weights of 1."""
        if bool(weight != total):
            for parameter in self.trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(total / weight)

    def _step(self, step: int) -> dict[str, float]:
        """Clip the gradient and update; return what the log says of it."""
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.trained, self.recipe.optim.max_grad_norm).item()
        # Under fp16 an overflow is expected now and then: the scaler leaves the update out and lowers its scale.
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:
            raise NonFiniteError(f"update {step + 1}: the gradient's norm is {norm}; nothing was changed")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm} if math.isfinite(norm) else {"grad_overflow": 1.0}

    def _reduce(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum") if self.world.size > 1 else values

    def _mean_metrics(self, seen: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        names = list(seen[0])
        if not names:
            return {}
        means = torch.stack([torch.cat([m[name].reshape(-1) for m in seen]).mean() for name in names])
        return dict(zip(names, (self._reduce(means) / self.world.size).tolist(), strict=True))

"""The loop that the pretraining scripts share: one-cycle AdamW, averaged weights, checkpoints, resume.

All data are functions of the step, so a resume needs the step number, the parameters and the optimiser's moments only.
"""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diffpref.core.files import publish_folder, read_json, write_json
from diffpref.training.state import load_tensors, pack_optimizer, restore_optimizer, save_tensors

__all__ = ["Loop", "one_cycle"]


def one_cycle(step: int, steps: int, warmup: float = 0.05) -> float:
    """Return the learning-rate factor in [0, 1]: a linear rise over a share of the steps, then a cosine to zero."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Loop:
    """Iterate over the steps still to do; call `update` once in each.

    Args:
        folder: where ``checkpoint/`` is published. A run that finds one goes on from it.
        modules: what is trained, by name.
        steps: the number of updates in all.
        learning_rate: the peak of the cycle.
        ema_decay: decay of the averaged weights, ramped up as (1 + n) / (10 + n); None keeps no average.
        checkpoint_every: updates between checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float = 0.01,
        ema_decay: float | None = None,
        checkpoint_every: int = 500,
        log_every: int = 100,
    ) -> None:
        self.folder, self.modules, self.steps = Path(folder), dict(modules), steps
        self.learning_rate, self.ema_decay = learning_rate, ema_decay
        self.checkpoint_every, self.log_every = checkpoint_every, log_every
        self.parameters = [p for m in self.modules.values() for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.averaged = copy.deepcopy(self.modules) if ema_decay is not None else self.modules
        for module in self.averaged.values() if ema_decay is not None else ():
            module.requires_grad_(False)
        self.step, self.seconds = 0, 0.0
        self.recent: deque[dict[str, float]] = deque(maxlen=log_every)
        if (self.folder / "checkpoint").exists():
            self._load()

    def __iter__(self) -> Iterator[int]:
        self.started = time.monotonic() - self.seconds
        while self.step < self.steps:
            yield self.step
        self._save()

    def update(self, loss: Tensor, **metrics: Tensor) -> None:
        """Back-propagate, clip at norm 1, step, average, and now and then log and save."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * one_cycle(self.step, self.steps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, error_if_nonfinite=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds = time.monotonic() - self.started
        if self.ema_decay is not None:
            decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
            for name, module in self.modules.items():
                averaged = [p.data for p in self.averaged[name].parameters()]
                torch._foreach_lerp_(averaged, [p.data for p in module.parameters()], 1 - decay)
        self.recent.append({"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}})
        if self.step % self.log_every == 0 or self.step == self.steps:
            means = {k: sum(r[k] for r in self.recent) / len(self.recent) for k in self.recent[-1]}
            line = " ".join(f"{name} {value:.5f}" for name, value in means.items())
            print(f"step {self.step}/{self.steps} {line} minutes {self.seconds / 60:.1f}", flush=True)
        if self.step % self.checkpoint_every == 0:
            self._save()

    def mean(self, metric: str) -> float:
        """Return a metric's mean over the last ``log_every`` updates."""
        return sum(values[metric] for values in self.recent) / max(1, len(self.recent))

    def _states(self) -> dict[str, nn.Module]:
        return {**self.modules, **{f"averaged_{name}": module for name, module in self.averaged.items()}}

    def _save(self) -> None:
        with publish_folder(self.folder / "checkpoint", replace=True) as folder:
            for name, module in self._states().items():
                save_tensors(folder / f"{name}.safetensors", module.state_dict())
            moments, described = pack_optimizer(self.optimizer)
            save_tensors(folder / "optimizer.safetensors", moments)
            counters = {"step": self.step, "seconds": self.seconds, "optimizer": described}
            write_json(folder / "counters.json", counters)

    def _load(self) -> None:
        folder = self.folder / "checkpoint"
        for name, module in self._states().items():
            module.load_state_dict(load_tensors(folder / f"{name}.safetensors"))
        counters = read_json(folder / "counters.json")
        restore_optimizer(self.optimizer, load_tensors(folder / "optimizer.safetensors"), counters["optimizer"])
        self.step, self.seconds = counters["step"], counters["seconds"]

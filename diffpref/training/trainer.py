"""The training loop: load, check, resume; update after update; checkpoints and the result.

It knows neither formulas nor model internals. Everything random is a function of the step, so that a resumed run goes
on bit by bit where the checkpoint was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import Signals

from diffpref.config import Recipe, save_recipe
from diffpref.core.contracts import Callback, World
from diffpref.core.errors import DiskFullError, Interrupted
from diffpref.core.randomness import Random
from diffpref.models.precision import autocast
from diffpref.models.sharding import gather_tensors
from diffpref.training.assembly import Machine, assemble, load_batches
from diffpref.training.checkpoints import Checkpoint, checkpoint_path, save_checkpoint
from diffpref.training.forward import Watcher
from diffpref.training.launch import largest_number, launch, sharding_options
from diffpref.training.log import MetricsLog
from diffpref.training.memory import memory_bytes
from diffpref.training.output import RunFolder
from diffpref.training.plan import make_plan
from diffpref.training.result import write_results
from diffpref.training.resume import settings_of, with_records_per_update
from diffpref.training.rollback import healthy_checkpoint
from diffpref.training.run_state import collect_state, restore_state
from diffpref.training.signals import StopSignals
from diffpref.training.together import any_process, on_main
from diffpref.training.trackers import Trackers, open_trackers

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Train by a recipe.

    Everything is loaded and checked when the first step is asked for. `steps` yields the metrics of each update; `fit`
    runs to the end and saves the result.

    Args:
        recipe: what to do.
        callbacks: called after each update and at the end, on every process.

    Raises:
        ConfigError: names or options that do not fit each other (at construction).
    """

    def __init__(self, recipe: Recipe, callbacks: Sequence[Callback] = ()) -> None:
        self.recipe, self.callbacks = recipe, tuple(callbacks)
        self.plan = make_plan(recipe)
        self.output = Path(recipe.output)
        self.random = Random(recipe.seed)
        self.step = 0
        self.trackers = Trackers()
        self._ready = False
        self._signals: StopSignals | None = None

    # ------------------------------------------------------------ set-up

    def setup(self) -> None:
        """Read the data, encode them, load the denoiser, and resume if there is a checkpoint."""
        if self._ready:
            return
        self._launch()
        self.folder = RunFolder(self.accelerator, self.recipe)
        try:
            found = self.folder.find_start()
            self._load(found)
            if found is not None:
                self._resume(found)
            self.accelerator.wait_for_everyone()
            if self.world.is_main:  # only now: a run that could not start leaves nothing in the way of the next
                save_recipe(self.recipe, self.output / "config.yaml")
                self.log = MetricsLog(self.output / "metrics.jsonl", self.step, self.recipe.training.on_full_disk)
                self.trackers = open_trackers(self.recipe, self.output, self.step)
        except BaseException:
            self.folder.release()
            raise
        self._ready = True

    def prepare(self, found: Checkpoint | None = None) -> None:
        """Read the data, encode them and load the denoiser, without a run: no lock, no log, no checkpoint looked for.

        Args:
            found: a checkpoint whose state to take.
        """
        self._launch()
        self._load(found)
        if found is not None:
            self._resume(found)

    def _load(self, found: Checkpoint | None = None) -> None:
        self.batches, self.data_digest = load_batches(self.recipe, self.plan, self.random, self.machine, found)
        self.plan = self.plan.settled([item.columns for item in self.batches.items])
        made = assemble(self.recipe, self.plan, self.random, self.batches, self.machine)
        self.family, self.bare, self.roles, self.moving = made.family, made.bare, made.roles, made.moving
        self.banked, self.updater, self.alarms = made.banked, made.updater, made.alarms

    def _launch(self) -> None:
        self.accelerator = launch()
        self.device = self.accelerator.device
        largest = partial(largest_number, self.accelerator)
        size, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.world = World(size, rank, largest, self.accelerator.gather)
        self.recipe = with_records_per_update(self.recipe, self.world.size)
        sharding = sharding_options(self.accelerator, self.recipe)
        self.autocast = partial(autocast, self.recipe.model.precision, self.device)
        self.machine = Machine(self.accelerator, self.device, self.world, sharding)

    @property
    def sharded(self) -> bool:
        """Whether every process must take part when a network is asked."""
        return self.machine.sharding is not None

    def _resume(self, found: Checkpoint) -> None:
        restore_state(found, self.updater, self.moving, self.plan.adapter, self.bare)
        self.alarms.load_state(found.counters.get("alarms", {}))
        self._tell_round()
        self.step = found.step
        if self.world.is_main:
            logger.info("resumed from %s", found.path)

    # ------------------------------------------------------------ the loop

    @property
    def records_per_update(self) -> int:
        """Records in one update, over all processes and accumulation steps."""
        training = self.recipe.training
        return training.batch_size * training.accumulation * self.world.size

    def next_items(self) -> list[tuple[int, int]]:
        """Return the (item number, visit) pairs of the next update, over all processes."""
        return self.updater.feed.everywhere(self.step)

    def advance(self, watcher: Watcher | None = None) -> dict[str, float]:
        """Do one update and what moves with it; nothing is written.

        Args:
            watcher: looks at it.
        """
        metrics = {"step": self.step + 1, **self.updater(self.step, watcher)}
        self.step += 1
        self.moving.after_update(self.step, metrics)
        return metrics

    def steps(self) -> Iterator[dict[str, float]]:
        """Yield the metrics of each update still to do; save checkpoints and the result on the way."""
        self.setup()
        training = self.recipe.training
        try:
            self.folder.take()
            while self.step < training.steps and not self.alarms.winner.ended:
                started = time.perf_counter()
                metrics = self.advance()
                seconds = time.perf_counter() - started
                shown = self.batches.samples + len(set(self.plan.groups) - set(self.plan.taken))
                metrics[f"perf/{self.family.samples}_per_second"] = shown * self.records_per_update / seconds
                metrics["perf/memory_bytes"] = memory_bytes(self.device)
                metrics.update(self.alarms(self.step, metrics))
                for callback in self.callbacks:
                    metrics.update(callback.on_step(self, self.step, metrics) or {})
                due = self.step % training.log_every == 0 or self.step == training.steps
                if self.world.is_main and (due or "guards/winner_alarm" in metrics):
                    self.log.write(metrics)
                    self.trackers.log(metrics)
                if training.checkpoint_every and self.step % training.checkpoint_every == 0:
                    self.save_checkpoint()
                if self.step < training.steps and self._signals is not None:
                    self._heed(self._signals)
                yield metrics
            self._finish()
        finally:
            self.trackers.close()
            self.folder.release()

    def fit(self) -> Path:
        """Run to the end; return the run's folder."""
        from tqdm import tqdm

        self.setup()
        show = None if self.world.is_main else True  # None: only on a terminal
        with (
            StopSignals() as self._signals,
            tqdm(total=self.recipe.training.steps, initial=self.step, disable=show, desc="train") as bar,
        ):
            for metrics in self.steps():
                shown = {k: f"{metrics[k]:.4g}" for k in ("loss", "rewards/accuracies") if k in metrics}
                bar.set_postfix(shown)
                bar.update()
        return self.output

    def _heed(self, signals: StopSignals) -> None:
        """Save and stop when a signal has come to any process."""
        if number := any_process(self.accelerator, signals.number):
            self.save_checkpoint(must=True)
            told = f"stopped by {Signals(number).name} after update {self.step} of {self.recipe.training.steps}"
            told += f"; saved in {checkpoint_path(self.output, self.step)}; the same command goes on from there"
            raise Interrupted(told if self.world.is_main else "", number)

    def next_round(self) -> None:
        """End a round of making data and training on them: roles whose rule is ``round`` become the policy."""
        self.setup()
        self.moving.next_round()
        self._tell_round()

    def _tell_round(self) -> None:
        context = replace(self.updater.context, round=self.moving.round)
        self.updater = replace(self.updater, context=context)

    def save_checkpoint(self, must: bool = False) -> None:
        """Publish a checkpoint of this step.

        Args:
            must: whether a full disk is an error whatever the recipe says.
        """
        self.moving.check_frozen()
        for role in self.banked.values():
            role.flush()

        parts, counters = collect_state(
            self.updater, self.moving, self.plan.adapter, self.bare, keep=self.world.is_main
        )
        good = self.alarms.winner.good_after(self.step)
        counters |= {"settings": settings_of(self.recipe), "data": self.data_digest, "alarms": self.alarms.state(good)}

        def save() -> int:
            training, spare = self.recipe.training, self.alarms.winner.spare(good)
            try:
                save_checkpoint(self.output, self.step, parts, counters, training.keep, spare)
            except DiskFullError as error:
                if must or training.on_full_disk == "raise":
                    raise
                logger.warning("%s; training goes on without it", error)
            return int(checkpoint_path(self.output, self.step).exists())

        if on_main(self.accelerator, save):  # a roll-back can go only where there is something
            self.alarms.winner.good = good

    def _finish(self) -> None:
        self.save_checkpoint()
        if self.alarms.winner.ended and self.recipe.guards.winner_error == "roll_back":
            found = healthy_checkpoint(self.output, self.accelerator)
            if found is not None:
                self._resume(found)
        adapter, average = self.plan.adapter, self.moving.average
        results = {adapter.folder: adapter.state(self.bare)}
        if average is not None:
            results[f"{adapter.folder}_ema"] = average.tensors
        whole = {name: gather_tensors(tensors, keep=self.world.is_main) for name, tensors in results.items()}

        def write() -> int:
            self.log.flush()
            write_results(
                self.output, self.recipe, self.plan, self.family, self.bare, whole,
                data=self.data_digest, processes=self.world.size,
            )  # fmt: skip
            return 0

        on_main(self.accelerator, write)
        for callback in self.callbacks:
            callback.on_end(self)
        self.accelerator.wait_for_everyone()

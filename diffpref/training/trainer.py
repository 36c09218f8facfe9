"""The training loop: load, check, resume; update after update; checkpoints and the result.

It knows neither formulas nor model internals. Everything random is a function of the step, so that a resumed run goes
on bit by bit where the checkpoint was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

from diffpref.cache import BankedRole
from diffpref.config import Recipe, save_recipe
from diffpref.core.contracts import Callback, Context, Likelihood, World
from diffpref.core.errors import DiskFullError, Interrupted
from diffpref.core.randomness import Random
from diffpref.models import open_family
from diffpref.models.adapters import Held
from diffpref.models.attention import set_attention
from diffpref.models.compiling import compile_network
from diffpref.models.precision import autocast
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import PlacedRole, place_roles, view_roles
from diffpref.models.sharding import gather_tensors, shard_network
from diffpref.training.alarms import Alarms
from diffpref.training.banking import answering, bank_role
from diffpref.training.batches import Batches
from diffpref.training.checkpoints import Checkpoint, checkpoint_path, save_checkpoint
from diffpref.training.demands import check_items
from diffpref.training.encoders import registry as encoders
from diffpref.training.forward import Watcher
from diffpref.training.guards import NonFiniteGuard
from diffpref.training.items import load_items, settle_scores
from diffpref.training.launch import launch, loss_scaler, sharding_options
from diffpref.training.log import MetricsLog
from diffpref.training.memory import memory_bytes
from diffpref.training.moving import Moving
from diffpref.training.optimizer import make_optimizer
from diffpref.training.output import RunFolder
from diffpref.training.plan import make_plan
from diffpref.training.result import write_results
from diffpref.training.resume import refuse_other_data, settings_of, with_records_per_update
from diffpref.training.rollback import healthy_checkpoint
from diffpref.training.run_state import collect_state, restore_state
from diffpref.training.signals import StopSignals
from diffpref.training.together import any_process, on_main
from diffpref.training.trackers import Trackers, open_trackers
from diffpref.training.update import Updater

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
        self._load_data(found)
        self._build()

    def _launch(self) -> None:
        self.accelerator = launch()
        self.device = self.accelerator.device
        self.world = World(self.accelerator.num_processes, self.accelerator.process_index)
        self.recipe = with_records_per_update(self.recipe, self.world.size)
        self.sharding = sharding_options(self.accelerator, self.recipe)
        self.autocast = partial(autocast, self.recipe.model.precision, self.device)

    def _load_data(self, found: Checkpoint | None) -> None:
        recipe, main = self.recipe, self.world.is_main
        plan, quarantine = self.plan, str(self.output / "quarantine.jsonl") if main else None
        kind = encoders.get(plan.method.likelihood)
        records, items = load_items(recipe.data, plan.view, quarantine, kind.texts)
        items = settle_scores(items, recipe.data.list_scores, plan.composition)
        if main:
            logger.info("data: %d records give %d %s", len(records), len(items), plan.view)
        check_items(items, plan, self.records_per_update)  # before anything heavy is loaded, and for what is left of it
        with self.accelerator.main_process_first():  # the others find what the first has encoded
            encoder = kind.open(recipe, records, self.random, self.device, plan.names)
            items = encoder.usable(items, plan.groups)
            check_items(items, plan, self.records_per_update)
            columns = plan.columns | set(plan.composition.optional)
            self.batches = Batches(items, encoder, self.random, self.device, plan.groups, columns, recipe.bank.slots)
            self.data_digest = self.batches.digest()
            if found is not None and "data" in found.counters:
                refuse_other_data(found.counters["data"], self.data_digest, recipe.output)
            self.batches.encode()
        encoder.release()

    def _build(self) -> None:
        recipe, adapter = self.recipe, self.plan.adapter
        self.family = open_family(recipe.model, "network").to(self.device)
        self.family.even = self.batches.encoder.even or bool(recipe.model.compile)
        self.bare: Any = self.family.network
        set_attention(self.bare, recipe.model.attention)
        adapter.install(self.family, self.random)
        # before the network is spread over several processes
        attend = partial(set_attention, backend=recipe.model.attention)
        placed = place_roles(self.plan.specs, self.family, adapter, self.random, attend)
        set_checkpointing(self.family, self.bare, recipe.model.gradient_checkpointing)
        network = self._spread(placed)
        trained = {"policy": adapter.parameters(Held(self.bare))}
        trained |= {name: role.parameters for name, role in placed.items() if role.spec.trained}
        optimizer = make_optimizer(recipe.optim, trained, self.device)
        for name, group in zip(trained, optimizer.param_groups, strict=True):
            group |= {"role": name, "lr_scale": placed[name].spec.learning_rate_scale if name in placed else 1.0}
        self.roles = view_roles(placed, self.family, network, self.autocast, self.plan.wanted)
        context = Context(self.family, self.roles, self.random, world=self.world)
        self.moving = Moving(
            placed, adapter, self.bare, optimizer, self.plan.method, context, average=recipe.training.ema
        )
        likelihood = self.plan.likelihood.build(self.family, recipe.likelihood, self.plan.trained)
        self.banked = self._bank_roles(likelihood)
        self.roles.update(self.banked)
        self.updater = Updater(
            recipe=recipe,
            plan=self.plan,
            batches=self.batches,
            context=replace(context, state=self.moving.memory),
            likelihood=likelihood,
            network=network,
            trained=trained.pop("policy"),
            peers=trained,
            optimizer=optimizer,
            scaler=loss_scaler(recipe.model.precision, self.device),
            accelerator=self.accelerator,
            state={name: tensor.to(self.device) for name, tensor in self.plan.composition.initial_state().items()},
            guard=NonFiniteGuard(recipe.guards, self.output if self.world.is_main else None),
        )
        self.alarms = Alarms(recipe, self.plan, getattr(self.family, "schedule", None), self._num_elements)

    def _num_elements(self) -> int:
        """Count the elements of a latent."""
        media = self.batches.batch([(0, 0)]).media
        return next(iter(media.values()))[0].numel()

    def _bank_roles(self, likelihood: Likelihood) -> dict[str, BankedRole]:
        """Put the roles that the recipe names behind their banks."""
        settings = self.recipe.bank
        if not settings.slots:
            return {}
        folder = Path(settings.folder or Path(self.recipe.data.cache or self.output / "cache") / "bank")
        gather = self.accelerator.gather if self.world.size > 1 else None
        changing = frozenset({"policy", *(name for name in self.plan.specs if name not in self.moving.digests)})
        banked = {}
        for name in settings.roles:
            fingerprint = answering(
                self.recipe, self.moving.placed[name], self.moving.digests[name], likelihood, self.device
            )
            banked[name] = bank_role(
                name, self.roles[name], likelihood, folder, fingerprint, gather, self.world.rank, changing
            )
        return banked

    def _spread(self, placed: Mapping[str, PlacedRole]) -> Any:
        """Compile every network of the run, and spread it over the processes; return the policy's as a step asks it.

        Raises:
            ConfigError: there is no such backend to compile with.
        """
        model = self.recipe.model
        networks = {id(held): held for held in (self.bare, *(role.held.network for role in placed.values()))}
        for network in networks.values():  # all alike, so that policy and reference are equal to the bit at the start
            blocks = self.family.blocks(network)
            if model.compile:
                compile_network(network, blocks, model.compile, model.compile_backend)
            if self.sharding is not None:
                shard_network(network, blocks, self.sharding)
        return self.accelerator.prepare(self.family.asked(self.bare)) if self.sharding is None else self.bare

    @property
    def sharded(self) -> bool:
        """Whether every process must take part when a network is asked."""
        return self.sharding is not None

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
        """Return the (pair number, visit) items of the next update, over all processes."""
        return self.batches.sampler.batch(self.step, self.records_per_update)

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
                metrics[f"perf/{self.family.samples}_per_second"] = (
                    self.batches.samples * self.records_per_update / seconds
                )
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
        self.alarms.winner.note_checkpoint(self.step)
        counters |= {"settings": settings_of(self.recipe), "data": self.data_digest, "alarms": self.alarms.state()}

        def save() -> int:
            training = self.recipe.training
            try:
                save_checkpoint(self.output, self.step, parts, counters, training.keep, self.alarms.winner.spare)
            except DiskFullError as error:
                if must or training.on_full_disk == "raise":
                    raise
                logger.warning("%s; training goes on without it", error)
            return 0

        on_main(self.accelerator, save)

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

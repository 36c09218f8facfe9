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
from typing import Any

from diffpref.cache import BankedRole, EncodedCache
from diffpref.config import Recipe, load_recipe, save_recipe
from diffpref.core.contracts import Callback, Context, Likelihood, World
from diffpref.core.errors import CheckpointError, ConfigError, DataError
from diffpref.core.files import publish_folder
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.models import open_family
from diffpref.models.attention import set_attention
from diffpref.models.precision import autocast
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import place_roles, view_roles
from diffpref.training.banking import answering, bank_role
from diffpref.training.batches import PairBatches, framing_of, load_pairs, pair_columns
from diffpref.training.card import write_model_card
from diffpref.training.checkpoints import list_checkpoints, newest_checkpoint, remove_unfinished, save_checkpoint
from diffpref.training.guards import NonFiniteGuard
from diffpref.training.launch import launch, loss_scaler
from diffpref.training.log import MetricsLog, read_metrics
from diffpref.training.memory import memory_bytes
from diffpref.training.moving import Moving
from diffpref.training.optimizer import make_optimizer
from diffpref.training.plan import make_plan
from diffpref.training.resume import refuse_changes, with_records_per_update
from diffpref.training.state import pack_optimizer, restore_optimizer
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
        self._ready = False

    # ------------------------------------------------------------ set-up

    def setup(self) -> None:
        """Read the data, encode them, load the denoiser, and resume if there is a checkpoint."""
        if self._ready:
            return
        self._launch()
        self._check_output()
        self._load()
        self._resume()
        self.accelerator.wait_for_everyone()
        if self.world.is_main:  # only now: a run that could not start leaves nothing that stands in the way of the next
            save_recipe(self.recipe, self.output / "config.yaml")
            self.log = MetricsLog(self.output / "metrics.jsonl", self.step)
        self._ready = True

    def prepare(self) -> None:
        """Read the data, encode them and load the denoiser, without a run: no checkpoint is read."""
        self._launch()
        self._load()

    def _load(self) -> None:
        self._load_data()
        self._build()

    def _launch(self) -> None:
        self.accelerator = launch()
        self.device = self.accelerator.device
        self.world = World(self.accelerator.num_processes, self.accelerator.process_index)
        self.recipe = with_records_per_update(self.recipe, self.world.size)
        self.autocast = partial(autocast, self.recipe.model.precision, self.device)

    def _check_output(self) -> None:
        saved = self.output / "config.yaml"
        began = list_checkpoints(self.output) or read_metrics(self.output / "metrics.jsonl")
        if not (saved.exists() and began):
            return
        if not self.recipe.training.resume:
            raise ConfigError(
                f"training.resume: is false, but {self.output} holds a run already; choose another output, or resume it"
            )
        refuse_changes(load_recipe(saved), self.recipe)

    def _load_data(self) -> None:
        recipe, main = self.recipe, self.world.is_main
        records, pairs = load_pairs(recipe.data, str(self.output / "quarantine.jsonl") if main else None)
        if main:
            logger.info("data: %d records give %d pairs", len(records), len(pairs))
        if len(pairs) < self.records_per_update:
            raise DataError(
                f"{len(pairs)} pairs are fewer than the {self.records_per_update} of one update (training.batch_size x"
                " training.accumulation x processes); lower these, or give more data"
            )
        given = pair_columns(pairs)
        if missing := self.plan.columns - given:
            raise DataError(
                f"the objective and the method need the columns {', '.join(sorted(missing))}; the data give"
                f" {', '.join(sorted(given)) or 'none'}"
            )
        if "preference" in given and (deaf := self.plan.composition.deaf_to_preference):
            raise DataError(
                f"the data hold soft labels or ties, which the objective {', '.join(deaf)} would take for certain wins;"
                " drop ties (data.drop_ties), give hard labels, or use an objective that reads soft ones, such as dpo"
            )
        encoders = open_family(recipe.model, "vae", "text").to(self.device)
        resolution = recipe.data.resolution or encoders.native_resolution()
        with self.accelerator.main_process_first():  # the others find what the first has encoded
            cache = EncodedCache(Path(recipe.data.cache or self.output / "cache"), encoders, resolution)
            framing, slots = framing_of(recipe.data), recipe.bank.slots
            self.batches = PairBatches(
                records, pairs, cache, self.random, self.device, self.plan.groups, framing, slots
            )
            self.batches.encode()
        cache.release()

    def _build(self) -> None:
        recipe, adapter = self.recipe, self.plan.adapter
        self.family = open_family(recipe.model, "network").to(self.device)
        self.bare: Any = self.family.network
        set_attention(self.bare, recipe.model.attention)
        trained = {"policy": [p for group in adapter.install(self.family, self.random).values() for p in group]}
        # before the network is wrapped for several processes
        attend = partial(set_attention, backend=recipe.model.attention)
        placed = place_roles(self.plan.specs, self.family, adapter, self.random, attend)
        trained |= {name: role.parameters for name, role in placed.items() if role.spec.trained}
        set_checkpointing(self.family, self.bare, recipe.model.gradient_checkpointing)
        optimizer = make_optimizer(recipe.optim, trained, self.device)
        for name, group in zip(trained, optimizer.param_groups, strict=True):
            group |= {"role": name, "lr_scale": placed[name].spec.learning_rate_scale if name in placed else 1.0}
        network = self.accelerator.prepare(self.bare)
        self.roles = view_roles(placed, self.family, network, self.autocast)
        context = Context(self.family, self.roles, self.random, world=self.world)
        self.moving = Moving(
            placed, adapter, self.bare, optimizer, self.plan.method, context, average=recipe.training.ema
        )
        likelihood = DenoisingLikelihood(
            self.family.schedule, recipe.likelihood.weighting, recipe.likelihood.snr_gamma, self.plan.trained
        )
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

    def _resume(self) -> None:
        if self.world.is_main:
            remove_unfinished(self.output)
        found = newest_checkpoint(self.output)
        if found is None:
            return
        try:
            self.plan.adapter.load_state(self.bare, found.part("policy"))
            restore_optimizer(self.updater.optimizer, found.part("optimizer"), found.counters["optimizer"])
            self.updater.scaler.load_state_dict(found.counters["scaler"])
            self.updater.guard.load_state(found.counters.get("guard", {}))
            self.moving.load({part: found.part(part) for part in Moving.PARTS if part in found}, found.counters)
            if self.updater.state:
                self.updater.load_state(found.part("objective_state"))
        except (RuntimeError, KeyError, ValueError, CheckpointError) as error:
            raise CheckpointError(f"{found.path}: does not fit this model ({str(error).splitlines()[0]})") from error
        self.step = found.step
        if self.world.is_main:
            logger.info("resumed from %s", found.path)

    # ------------------------------------------------------------ the loop

    @property
    def records_per_update(self) -> int:
        """Records in one update, over all processes and accumulation steps."""
        training = self.recipe.training
        return training.batch_size * training.accumulation * self.world.size

    def steps(self) -> Iterator[dict[str, float]]:
        """Yield the metrics of each update still to do; save checkpoints and the result on the way."""
        self.setup()
        training = self.recipe.training
        while self.step < training.steps:
            started = time.perf_counter()
            metrics = self.updater(self.step)
            self.step += 1
            metrics = {"step": self.step, **metrics}
            self.moving.after_update(self.step, metrics)
            seconds = time.perf_counter() - started
            metrics["perf/images_per_second"] = len(self.batches.used) * self.records_per_update / seconds
            metrics["perf/memory_bytes"] = memory_bytes(self.device)
            for callback in self.callbacks:
                metrics.update(callback.on_step(self, self.step, metrics) or {})
            if self.world.is_main and (self.step % training.log_every == 0 or self.step == training.steps):
                self.log.write(metrics)
            if training.checkpoint_every and self.step % training.checkpoint_every == 0:
                self.save_checkpoint()
            yield metrics
        self._finish()

    def fit(self) -> Path:
        """Run to the end; return the run's folder."""
        from tqdm import tqdm

        self.setup()
        show = None if self.world.is_main else True  # None: only on a terminal
        with tqdm(total=self.recipe.training.steps, initial=self.step, disable=show, desc="train") as bar:
            for metrics in self.steps():
                shown = {k: f"{metrics[k]:.4g}" for k in ("loss", "rewards/accuracies") if k in metrics}
                bar.set_postfix(shown)
                bar.update()
        return self.output

    def save_checkpoint(self) -> None:
        """Publish a checkpoint of this step."""
        self.moving.check_frozen()
        for role in self.banked.values():
            role.flush()
        if self.world.is_main:
            moments, described = pack_optimizer(self.updater.optimizer)
            updater = self.updater
            parts = {"policy": self.plan.adapter.state(self.bare), "optimizer": moments, **self.moving.parts()}
            counters = {"optimizer": described, "scaler": updater.scaler.state_dict(), "guard": updater.guard.state()}
            counters |= self.moving.counters()
            if self.updater.state:
                parts["objective_state"] = self.updater.state
            save_checkpoint(self.output, self.step, parts, counters, self.recipe.training.keep)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        self.save_checkpoint()
        if self.world.is_main:
            adapter = self.plan.adapter
            with publish_folder(self.output / adapter.folder, replace=True) as folder:
                adapter.save(self.family, self.bare, folder)
            if (average := self.moving.average) is not None:
                where = self.output / f"{adapter.folder}_ema"
                with average.applied(), publish_folder(where, replace=True) as folder:
                    adapter.save(self.family, self.bare, folder)
            write_model_card(self.output, self.recipe, adapter.folder)
        for callback in self.callbacks:
            callback.on_end(self)
        self.accelerator.wait_for_everyone()

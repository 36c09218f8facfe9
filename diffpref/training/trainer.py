"""The training loop: prepare, ask the roles, likelihood, objectives, reduce, guard, update.

It knows neither formulas nor model internals. Everything random is a function of the step, so that a resumed run goes on
bit by bit where the checkpoint was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from diffpref.cache import EncodedCache
from diffpref.config import Recipe, load_recipe, save_recipe
from diffpref.core.contracts import Batch, Callback, Context, Role, Rows, Terms, World
from diffpref.core.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from diffpref.core.files import publish_folder
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.attention import set_attention
from diffpref.models.roles import build_roles
from diffpref.objectives.compose import reduce_sums
from diffpref.training.batches import PairBatches, load_pairs
from diffpref.training.card import write_model_card
from diffpref.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from diffpref.training.learning_rate import learning_rate
from diffpref.training.log import MetricsLog
from diffpref.training.plan import make_plan

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
# what may differ when a run goes on
FREE_ON_RESUME = {
    "output": None,
    "training": {"steps", "checkpoint_every", "keep", "log_every", "resume"},
    "validation": None,
}


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
        recipe = self.recipe
        precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[recipe.model.precision]
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.world = World(self.accelerator.num_processes, self.accelerator.process_index)
        with self.accelerator.main_process_first():
            self._claim_output()
        records, pairs = load_pairs(recipe.data, str(self.output / "quarantine.jsonl") if self.world.is_main else None)
        if len(pairs) < self.records_per_update:
            raise DataError(
                f"{len(pairs)} pairs are fewer than the {self.records_per_update} of one update (training.batch_size x"
                " training.accumulation x processes); lower these, or give more data"
            )
        encoders = self._load(("vae", "text")).to(self.device)
        resolution = recipe.data.resolution or encoders.native_resolution()
        cache = EncodedCache(Path(recipe.data.cache or self.output / "cache"), encoders, resolution)
        self.batches = PairBatches(records, pairs, cache, self.random, self.device)
        with self.accelerator.main_process_first():
            self.batches.encode()
        cache.release()
        self._check_columns()
        self._build()
        self._resume()
        self._ready = True

    def _load(self, parts: Sequence[str]) -> DenoiserFamily:
        model = self.recipe.model
        return load_family(
            model.family,
            model.path,
            parts=parts,
            precision=model.precision,
            revision=model.revision,
            variant=model.variant,
            allow_pickle=model.allow_pickle,
        )

    def _build(self) -> None:
        recipe = self.recipe
        self.family = self._load(("network",)).to(self.device)
        network = self.family.network
        set_attention(network, recipe.model.attention)
        groups = self.plan.adapter.install(self.family, self.random)
        if recipe.model.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        self.trained = [parameter for group in groups.values() for parameter in group]
        optim = recipe.optim
        optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters in groups.values()],
            lr=optim.learning_rate,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
        )
        specs = {name: spec for name, spec in self.plan.method.roles.items() if name in self.plan.roles}
        # a frozen copy is taken before the network is wrapped
        self.roles = build_roles(specs, self.family, network, self.plan.adapter, self.accelerator.autocast)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.roles["policy"] = self._policy(self.network)
        self.likelihood = DenoisingLikelihood(
            self.family.schedule, recipe.likelihood.weighting, recipe.likelihood.snr_gamma
        )

    def _policy(self, network: torch.nn.Module) -> Role:
        return build_roles({}, self.family, network, self.plan.adapter, self.accelerator.autocast)["policy"]

    def _claim_output(self) -> None:
        saved = self.output / "config.yaml"
        if saved.exists():
            if not self.recipe.training.resume:
                raise ConfigError(f"output: {self.output} holds a run already; choose another, or set training.resume")
            _refuse_changes(load_recipe(saved), self.recipe)
        if self.world.is_main:
            save_recipe(self.recipe, saved)

    def _check_columns(self) -> None:
        """Every data column that an objective must have is one that the data give."""
        wanted = set(self.plan.composition.tensors) - set(self.plan.names)
        if missing := wanted - self.batches.columns:
            raise DataError(
                f"the objective needs the columns {', '.join(sorted(missing))}; the data give"
                f" {', '.join(sorted(self.batches.columns)) or 'none'}"
            )

    def _resume(self) -> None:
        found = list_checkpoints(self.output)
        if found:
            self.step, state = load_checkpoint(found[-1], self.optimizer)
            try:
                self.plan.adapter.load_state(self.family.network, state)
            except (RuntimeError, KeyError, ValueError) as error:
                raise CheckpointError(f"{found[-1]}: does not fit this model ({str(error).splitlines()[0]})") from error
            logger.info("resumed from %s", found[-1])
        if self.world.is_main:
            self.log = MetricsLog(self.output / "metrics.jsonl", self.step)

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
            metrics = self._update()
            self.step += 1
            metrics = {"step": self.step, **metrics}
            seconds = time.perf_counter() - started
            metrics["perf/images_per_second"] = len(self.batches.groups) * self.records_per_update / seconds
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
        if self.world.is_main:
            state = self.plan.adapter.state(self.family.network)
            save_checkpoint(self.output, self.step, state, self.optimizer, self.recipe.training.keep)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        self.save_checkpoint()
        if self.world.is_main:
            target = self.output / self.plan.adapter.folder
            with publish_folder(target, replace=True) as folder:
                self.plan.adapter.save(self.family, self.family.network, folder)
            write_model_card(self.output, self.recipe, self.plan.adapter.folder)
        for callback in self.callbacks:
            callback.on_end(self)
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------ one update

    def _update(self) -> dict[str, float]:
        training, total = self.recipe.training, self.records_per_update
        items = self.batches.sampler.batch(self.step, total, rank=self.world.rank, num_ranks=self.world.size)
        rate = learning_rate(self.recipe.optim, self.step, training.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, weights, seen = [], [], []
        for start in range(0, len(items), training.batch_size):
            last = start + training.batch_size >= len(items)
            batch = self.batches.batch(items[start : start + training.batch_size])
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                terms, metrics = self._forward(batch)
                sums = reduce_sums(terms)
                # DDP averages gradients over processes; the sum over all is wanted
                share = self.world.size / total
                self._guard(sums, batch)
                self.accelerator.backward(sum(c * s * share for (c, _, _), (s, _) in zip(terms, sums, strict=True)))
            losses.append(torch.stack([s.detach() for s, _ in sums]))
            weights.append(torch.stack([w for _, w in sums]))
            seen.append(metrics)
        summed = self._sum_over_ranks(torch.stack([torch.stack(losses).sum(0), torch.stack(weights).sum(0)]))
        self._rescale(summed[1], total)
        norm = self.accelerator.clip_grad_norm_(self.trained, self.recipe.optim.max_grad_norm)
        if not torch.isfinite(norm):
            raise NonFiniteError(f"update {self.step + 1}: the gradient's norm is {norm.item()}; nothing was changed")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        coefficients = [coefficient for coefficient, _, _ in terms]
        loss = sum(c * (s / w).item() for c, s, w in zip(coefficients, summed[0], summed[1], strict=True))
        return {"loss": loss, **self._mean_metrics(seen), "grad_norm": norm.item(), "lr": rate}

    def _forward(self, batch: Batch) -> tuple[list[tuple[float, str, Terms]], dict[str, Tensor]]:
        """Ask the roles about one micro-batch; return the objective's terms and the (B,) metrics."""
        context = Context(self.family, self.roles, self.random, step=self.step, world=self.world)
        rows = self.plan.method.prepare(batch, context)
        outputs = {
            name: self.roles[name](rows, grad=name == "policy")
            for name in sorted(self.plan.roles, key=lambda name: name == "policy")
        }
        values = self.likelihood(self.plan.names, outputs, rows)
        tensors = {**values, **rows.columns}
        terms = [(c, name, _weighted(term, rows)) for c, name, term in self.plan.composition(tensors)]
        metrics = {k: v for _, _, term in terms for k, v in term.metrics.items()}
        metrics |= self.plan.composition.metrics(tensors) if "chosen_log_ratio" in values else {}
        for group in ("chosen", "rejected"):
            policy, reference = (values.get(f"{role}_{group}_errors") for role in ("policy", "reference"))
            if policy is not None:
                metrics[f"errors/{group}"] = policy
            if policy is not None and reference is not None:
                metrics[f"errors/{group}_vs_reference"] = policy - reference
        return terms, {name: value.detach().float() for name, value in metrics.items()}

    def _guard(self, sums: Sequence[tuple[Tensor, Tensor]], batch: Batch) -> None:
        """Stop on every process, before anything changes, when a loss is not finite on any."""
        finite = torch.stack([s.detach() for s, _ in sums]).isfinite().all().float().reshape(1)
        if self._sum_over_ranks(finite).item() < self.world.size:
            ids = ", ".join(f"{record} (visit {visit})" for record, visit in batch.keys[:8])
            raise NonFiniteError(
                f"update {self.step + 1}: the loss is not finite; nothing was changed. Records here: {ids}"
            )

    def _rescale(self, weights: Tensor, total: int) -> None:
        """Divide by the sum of weights where it is not the number of records, as it is with weights of 1."""
        if bool((weights == total).all()):
            return
        if len(weights) > 1 and not bool((weights == weights[0]).all()):
            raise ConfigError("objective: terms whose weights differ cannot be added yet; train with one of them")
        for parameter in self.trained:
            if parameter.grad is not None:
                parameter.grad.mul_(total / weights[0])

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum") if self.world.size > 1 else values

    def _mean_metrics(self, seen: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        names = list(seen[0])
        if not names:
            return {}
        means = torch.stack([torch.cat([m[name].reshape(-1) for m in seen]).mean() for name in names])
        return dict(zip(names, (self._sum_over_ranks(means) / self.world.size).tolist(), strict=True))


def _weighted(term: Terms, rows: Rows) -> Terms:
    """Multiply a term's weights by the data column ``weight`` where there is one."""
    column = rows.columns.get("weight")
    if column is None:
        return term
    weights = column.to(term.losses) if term.weights is None else term.weights * column
    return Terms(term.losses, weights, term.state, term.metrics)


def _refuse_changes(saved: Recipe, given: Recipe) -> None:
    changed = []
    for section, old in saved.model_dump(mode="json").items():
        new = given.model_dump(mode="json")[section]
        free = FREE_ON_RESUME.get(section, set())
        if free is None or old == new:
            continue
        if not (isinstance(old, dict) and isinstance(new, dict)):
            changed.append(f"{section}: {old} -> {new}")
            continue
        keys = sorted({*old, *new} - free)
        changed += [f"{section}.{k}: {old.get(k)} -> {new.get(k)}" for k in keys if old.get(k) != new.get(k)]
    if changed:
        raise ConfigError(f"output: {saved.output} holds a run with other settings:\n  " + "\n  ".join(changed))

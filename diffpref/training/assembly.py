"""Everything that a run is made of, loaded and put together: data, networks, roles, likelihood, optimiser."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from diffpref.cache import BankedRole
from diffpref.config import Recipe
from diffpref.core.contracts import Context, Likelihood, Role, World
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.data import with_captions
from diffpref.models import ModelFamily, open_family
from diffpref.models.adapters import Held
from diffpref.models.attention import set_attention
from diffpref.models.compiling import compile_network
from diffpref.models.precision import autocast
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import PlacedRole, place_roles, view_roles
from diffpref.models.sharding import shard_network
from diffpref.rewards import load_named
from diffpref.training.alarms import Alarms
from diffpref.training.banking import answering, bank_role
from diffpref.training.batches import Batches
from diffpref.training.checkpoints import Checkpoint
from diffpref.training.collecting import Collector, check_collecting
from diffpref.training.demands import check_items, check_sources
from diffpref.training.encoders import registry as encoders
from diffpref.training.feed import Feed
from diffpref.training.guards import NonFiniteGuard
from diffpref.training.items import load_items, settle_scores
from diffpref.training.launch import loss_scaler
from diffpref.training.moving import Moving
from diffpref.training.optimizer import make_optimizer
from diffpref.training.plan import Plan
from diffpref.training.resume import refuse_other_data
from diffpref.training.update import Updater

__all__ = ["Assembly", "Machine", "assemble", "load_batches"]

logger = logging.getLogger(__name__)

HEADS = "heads"
"""The parameter group of heads that are trained beside the policy."""


@dataclass(frozen=True)
class Machine:
    """Where a run runs.

    Args:
        accelerator: of this process.
        device: where networks and batches lie.
        world: the processes that train together.
        sharding: how networks are spread over them; None where every process holds all weights.
    """

    accelerator: Accelerator
    device: torch.device
    world: World
    sharding: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, loaded.

    Args:
        family: of the models, without what only the encoding needs.
        bare: the policy's network, unwrapped.
        roles: the models as a step asks them.
        moving: what moves between updates.
        banked: the roles of ``roles`` that are read from a bank.
        updater: does updates.
        alarms: watch the run.
    """

    family: Any
    bare: Any
    roles: dict[str, Role]
    moving: Moving
    banked: Mapping[str, BankedRole]
    updater: Updater
    alarms: Alarms


def load_batches(
    recipe: Recipe, plan: Plan, random: Random, machine: Machine, found: Checkpoint | None = None
) -> tuple[Batches, dict[str, Any]]:
    """Read the data, check them and encode what is not encoded yet; return them with their digest.

    Args:
        recipe: of the run.
        plan: what it asks of the data.
        random: of the run.
        machine: where it runs.
        found: the checkpoint that the run goes on from; it was trained on the same data.

    Raises:
        DataError: they cannot be read, or do not give what the plan asks.
        ConfigError: they are not those of the checkpoint.
    """
    output, main = Path(recipe.output), machine.world.is_main
    training = recipe.training
    records_per_update = training.batch_size * training.accumulation * machine.world.size
    kind = encoders.get(plan.method.likelihood)
    unusable = str(output / "quarantine.jsonl") if main else None
    check = kind.check(recipe)
    alone = plan.taken == ("chosen",)
    few = max((getattr(term.options, "min_non_tie", 0.0) for term in plan.composition.terms), default=0.0)
    records, items = load_items(recipe.data, plan.view, unusable, kind.texts, plan.columns, check, alone, few)
    check_sources(records, items, getattr(plan.method, "pair_source", "any"), recipe.data.source)
    items = settle_scores(items, recipe.data.list_scores, plan.composition)
    items = with_captions(records, items, getattr(plan.method, "captions", {}), recipe.data.source)
    if main:
        logger.info("data: %d records give %d %s", len(records), len(items), plan.view)
    if plan.collecting is not None:
        check_collecting(plan.collecting, recipe.method.name, records_per_update)
        records_per_update //= plan.collecting.group_size
    check_items(items, plan, records_per_update)  # before anything heavy is loaded, and for what is left of it
    with machine.accelerator.main_process_first():  # the others find what the first has encoded
        encoder = kind.open(recipe, records, random, machine.device, plan.names)
        items = encoder.usable(items, plan.taken)
        check_items(items, plan, records_per_update, getattr(encoder, "timesteps", None))
        columns = plan.columns | set(plan.composition.optional)
        shown = (recipe.bank.slots, recipe.data.positive_share)
        batches = Batches(items, encoder, random, machine.device, plan.taken, columns, *shown)
        digest = batches.digest()
        if found is not None and "data" in found.counters:
            refuse_other_data(found.counters["data"], digest, recipe.output)
        batches.encode()
    encoder.release()
    return batches, digest


def assemble(recipe: Recipe, plan: Plan, random: Random, batches: Batches, machine: Machine) -> Assembly:
    """Load the network and put everything that trains it together.

    Raises:
        ConfigError: a role cannot be had as it was asked for, or the network cannot be compiled.
        ModelError: nothing that can be loaded lies at a path.
    """
    adapter, cast = plan.adapter, partial(autocast, recipe.model.precision, machine.device)
    scorers = load_named(plan.rewards, str(machine.device))
    decodes = scorers or getattr(plan.method, "decodes", False)  # what is scored is decoded
    parts = ("network", "vae") if decodes else ("network",)
    family: ModelFamily = open_family(recipe.model, *parts)
    size = len(recipe.data.aspects) if "scores" in plan.wanted["policy"] else recipe.adapter.head_size
    family = family.settle(plan.wanted["policy"], recipe.scorer, random, size).to(machine.device)
    family.settle_path(recipe.likelihood, recipe.data.resolution)
    family.even = batches.encoder.even or bool(recipe.model.compile)
    if family.likelihood == "tokens" and machine.sharding is not None:
        raise ConfigError("language models are not spread over processes yet; launch without FSDP")
    bare: Any = family.network
    set_attention(bare, recipe.model.attention)
    adapter.install(family, random)
    # before the network is spread over several processes
    attend = partial(set_attention, backend=recipe.model.attention)
    placed = place_roles(plan.specs, family, adapter, random, attend)
    set_checkpointing(family, bare, recipe.model.gradient_checkpointing)
    network = _spread(recipe, family, placed, machine)
    trained = {"policy": adapter.parameters(Held(bare))}
    trained |= {name: role.parameters for name, role in placed.items() if role.spec.trained}
    heads = family.install_heads(plan.wanted["policy"], recipe.adapter.heads, size)
    trained |= {HEADS: heads} if heads else {}
    optimizer = make_optimizer(recipe.optim, trained, machine.device)
    for name, group in zip(trained, optimizer.param_groups, strict=True):
        scale = placed[name].spec.learning_rate_scale if name in placed else 1.0
        group |= {"role": name, "lr_scale": recipe.adapter.head_learning_rate_scale if name == HEADS else scale}
    roles = view_roles(placed, family, network, cast, plan.wanted, recipe.training.max_rows)
    context = Context(family, roles, random, scorers=scorers, world=machine.world, networks=dict(roles))
    moving = Moving(placed, adapter, bare, optimizer, plan.method, context, average=recipe.training.ema)
    likelihood = plan.likelihood.build(family, recipe.likelihood, plan.trained)
    banked = _bank_roles(recipe, plan, roles, moving, likelihood, machine)
    roles.update(banked)
    updater = Updater(
        recipe=recipe,
        plan=plan,
        feed=_feed(recipe, plan, batches, machine.world),
        context=replace(context, state=moving.memory),
        likelihood=likelihood,
        network=network,
        trained=trained.pop("policy"),
        peers=trained,
        optimizer=optimizer,
        scaler=loss_scaler(recipe.model.precision, machine.device),
        accelerator=machine.accelerator,
        state={name: tensor.to(machine.device) for name, tensor in plan.composition.initial_state().items()},
        guard=NonFiniteGuard(recipe.guards, Path(recipe.output) if machine.world.is_main else None),
    )
    alarms = Alarms(recipe, plan, getattr(family, "schedule", None), partial(_num_elements, batches, family))
    return Assembly(family, bare, roles, moving, banked, updater, alarms)


def _feed(recipe: Recipe, plan: Plan, batches: Batches, world: World) -> Feed:
    """Return what hands out the records of each update."""
    total = recipe.training.batch_size * recipe.training.accumulation * world.size
    if plan.collecting is None:
        return Feed(batches, total, world)
    return Collector(batches, total, world, plan.collecting)


def _num_elements(batches: Batches, family: Any) -> int:
    """Count the elements of a sample: a latent's."""
    found = batches.batch([(0, 0)]).media
    if not found:  # prompts alone
        return math.prod(family.sample_shape())
    group, media = next(iter(found.items()))
    return media[0, 0].numel() if group == "list" else media[0].numel()


def _bank_roles(
    recipe: Recipe,
    plan: Plan,
    roles: Mapping[str, Role],
    moving: Moving,
    likelihood: Likelihood,
    machine: Machine,
) -> dict[str, BankedRole]:
    """Put the roles that the recipe names behind their banks."""
    settings = recipe.bank
    if not settings.slots:
        return {}
    folder = Path(settings.folder or Path(recipe.data.cache or Path(recipe.output) / "cache") / "bank")
    gather = machine.accelerator.gather if machine.world.size > 1 else None
    changing = frozenset({"policy", *(name for name in plan.specs if name not in moving.digests)})
    banked = {}
    for name in settings.roles:
        fingerprint = answering(recipe, moving.placed[name], moving.digests[name], likelihood, machine.device)
        banked[name] = bank_role(
            name, roles[name], likelihood, folder, fingerprint, gather, machine.world.rank, changing
        )
    return banked


def _spread(recipe: Recipe, family: ModelFamily, placed: Mapping[str, PlacedRole], machine: Machine) -> Any:
    """Compile every network of the run, and spread it over the processes; return the policy's as a step asks it.

    Raises:
        ConfigError: there is no such backend to compile with.
    """
    model, bare = recipe.model, family.network
    networks = {id(held): held for held in (bare, *(role.held.network for role in placed.values()))}
    for network in networks.values():  # all alike, so that policy and reference are equal to the bit at the start
        blocks = family.blocks(network)
        if model.compile:
            compile_network(network, blocks, model.compile, model.compile_backend)
        if machine.sharding is not None:
            shard_network(network, blocks, machine.sharding)
    return machine.accelerator.prepare(family.asked(bare)) if machine.sharding is None else bare

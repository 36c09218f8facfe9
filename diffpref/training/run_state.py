"""What of a run goes into a checkpoint, part by part, and how it comes back."""

from __future__ import annotations

from typing import Any

from torch import nn

from diffpref.core.errors import CheckpointError
from diffpref.models.adapters import Adapter
from diffpref.models.sharding import gather_tensors, scatter_tensors
from diffpref.training.checkpoints import Checkpoint
from diffpref.training.moving import Moving
from diffpref.training.state import pack_optimizer, restore_optimizer
from diffpref.training.update import Updater

__all__ = ["collect_state", "restore_state"]

COLLECTED = "collected"
"""The part with what a method has collected and not yet used up."""


def collect_state(
    updater: Updater, moving: Moving, adapter: Adapter, network: nn.Module, keep: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts (tensors by name) and the counters of a checkpoint. Every process must ask.

    Tensors that are sharded over processes are gathered: a checkpoint does not know how many wrote it.

    Args:
        updater: of the run.
        moving: what lives beside the policy.
        adapter: what is trained.
        network: the policy, not wrapped for several processes.
        keep: whether this process needs the tensors.
    """
    moments, described = pack_optimizer(updater.optimizer)
    parts: dict[str, Any] = {"policy": adapter.state(network), "optimizer": moments, **moving.parts()}
    if updater.state:
        parts["objective_state"] = dict(updater.state)
    if collected := updater.feed.state():
        parts[COLLECTED] = collected
    if (heads := updater.context.family.heads) is not None:
        parts["heads"] = dict(heads.state_dict())
    counters = {"optimizer": described, "scaler": updater.scaler.state_dict(), "guard": updater.guard.state()}
    whole = {part: gather_tensors(tensors, keep) for part, tensors in parts.items()}
    return whole, counters | moving.counters()


def restore_state(found: Checkpoint, updater: Updater, moving: Moving, adapter: Adapter, network: nn.Module) -> None:
    """Put the state of a checkpoint into a run.

    Raises:
        CheckpointError: it is of a run with another model, adapter or objective.
    """
    try:
        like: dict[str, Any] = {"policy": adapter.state(network), **moving.parts()}
        parts = {
            part: scatter_tensors(found.part(part), like.get(part, {}))
            for part in ("policy", *Moving.PARTS)
            if part == "policy" or part in found
        }
        adapter.load_state(network, parts.pop("policy"))
        if (heads := updater.context.family.heads) is not None:
            heads.load_state_dict(found.part("heads"))
        restore_optimizer(updater.optimizer, found.part("optimizer"), found.counters["optimizer"])
        updater.scaler.load_state_dict(found.counters["scaler"])
        updater.guard.load_state(found.counters.get("guard", {}))
        moving.load(parts, found.counters)
        updater.feed.load(found.part(COLLECTED) if COLLECTED in found else {}, found.step)
        if updater.state:
            updater.load_state(found.part("objective_state"))
    except (RuntimeError, KeyError, ValueError, CheckpointError) as error:
        raise CheckpointError(f"{found.path}: does not fit this model ({str(error).splitlines()[0]})") from error

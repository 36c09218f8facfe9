"""Which roles of a run are read from a bank, what decides their answers, and filling the bank ahead of training."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpref.cache import Bank, BankedRole
from diffpref.cache.encoded import network_settings
from diffpref.config import Bank as BankSettings
from diffpref.config import Recipe
from diffpref.core.contracts import Context, Likelihood, Method, Role, RoleSpec
from diffpref.core.vocabulary import parse
from diffpref.models.attention import attention_names
from diffpref.models.roles import PlacedRole
from diffpref.objectives.compose import Composition
from diffpref.training.batches import Batches

__all__ = ["answering", "bank_role", "fill_bank", "refusals"]

FORMAT = 1


def refusals(
    settings: BankSettings, specs: Mapping[str, RoleSpec], composition: Composition, likelihood: type[Likelihood]
) -> Iterator[str]:
    """Yield a line for each reason why the roles of a run cannot be read from a bank.

    That a method's inputs come from a role that is trained is known only when it prepares them: `BankedRole` says so.
    """
    if not settings.slots:
        return
    for role in settings.roles:
        if role not in composition.roles or role == "policy":
            yield (
                f"bank.roles: '{role}' is not asked anything that a bank could hold; the objective asks"
                f" {', '.join(sorted(composition.roles))}. Set bank.slots to 0"
            )
            continue
        spec = specs.get(role)
        if spec is not None and (spec.moves or spec.trained or spec.source == "policy"):
            yield (
                f"bank.roles: '{role}' moves while the run trains, so what it answered once is not what it would answer"
                " later; set bank.slots to 0, or let the role stand still"
            )
        names = [name for name in map(parse, composition.tensors) if name.kind == "model" and role in name.roles]
        if wide := sorted(str(n) for n in names if n.form not in likelihood.from_raw):
            yield (
                f"bank.roles: the objective asks {', '.join(wide)} of '{role}', which is more than a few numbers a row;"
                " set bank.slots to 0, or choose an objective of logps, log_ratio or errors"
            )


def answering(
    recipe: Recipe, role: PlacedRole, digest: str, likelihood: Likelihood, device: torch.device
) -> dict[str, Any]:
    """Return everything that decides what a role answers to a row, besides the row: a bank's fingerprint.

    Args:
        recipe: number formats.
        role: where its weights lie.
        digest: of the role's weights.
        likelihood: says what is kept.
        device: where the network runs.
    """
    network = role.held.network
    return {
        "format": FORMAT,
        "weights": digest,
        "scales": _scales(role),
        "family": recipe.model.family,
        "network": network_settings(network),
        "kept": [type(likelihood).__name__, *likelihood.raw_names],
        "precision": recipe.model.precision,
        "attention": attention_names(network),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "kernels": [
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(),
        ],
        "compiled": recipe.model.compile and [recipe.model.compile, recipe.model.compile_backend],
        "threads": torch.get_num_threads(),
        **({"max_rows": recipe.training.max_rows} if recipe.training.max_rows else {}),
        "versions": {"torch": torch.__version__, **{name: version(name) for name in ("diffusers", "transformers")}},
    }


def _scales(role: PlacedRole) -> list[tuple[str, float]]:
    """Return by what the LoRA of a role is multiplied, layer by layer: its weights do not say."""
    name, network = role.held.name, role.held.network
    if role.source == "base":
        return []
    scaled = ((layer, getattr(module, "scaling", None)) for layer, module in network.named_modules())
    return [(layer, scaling[name]) for layer, scaling in scaled if isinstance(scaling, dict) and name in scaling]


def _processor() -> str:
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def bank_role(
    name: str,
    role: Role,
    likelihood: Likelihood,
    folder: Path,
    fingerprint: Mapping[str, Any],
    gather: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
    trained: frozenset[str] = frozenset({"policy"}),
) -> BankedRole:
    """Put a role behind the bank of its fingerprint; the number of rows in a forward is part of that."""

    def open_bank(rows: int) -> Bank:
        return Bank(folder, {**fingerprint, "rows": rows}, len(likelihood.raw_names))

    return BankedRole(name, role, likelihood, open_bank, trained, gather, rank)


def fill_bank(
    role: BankedRole, method: Method, batches: Batches, context: Context, recipe: Recipe
) -> Iterator[tuple[int, int]]:
    """Ask a role about every draw of every record; yield how many of how many forwards are done.

    What the bank holds already is not asked again, so an interrupted filling goes on where it was.

    Args:
        role: behind its bank.
        method: that prepares rows.
        batches: the data, with the number of draws.
        context: of the run.
        recipe: says how many records a forward of its training has.
    """
    world, size = context.world, recipe.training.batch_size
    items = [(index, slot) for slot in range(batches.slots) for index in range(len(batches.items))]
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    parts += [parts[-1]] * (-len(parts) % world.size)  # each process makes the same number of calls
    own = parts[world.rank :: world.size]
    for done, part in enumerate(own, 1):
        padded = [part[place % len(part)] for place in range(size)]  # as many rows as in training
        with torch.no_grad():
            role(method.prepare(batches.batch(padded), context))
        yield done, len(own)
    role.flush()

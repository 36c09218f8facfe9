"""Roles: views of weights that answer questions.

Policy and reference run with the same rows, dtype and kernels, so that their answers are bit-equal until the first
update and every margin starts at exactly zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from diffpref.core.contracts import Role, RoleSpec, Rows
from diffpref.core.errors import ConfigError, DiffprefError, ModelError
from diffpref.core.randomness import Random
from diffpref.models.adapters import Adapter, Held
from diffpref.models.adapters._peft import is_lora, load_lora, select_lora
from diffpref.models.base import ModelFamily, Network
from diffpref.models.digest import digest
from diffpref.models.gates import Manager, enter
from diffpref.models.loading import freeze, load_component

__all__ = ["NetworkRole", "PlacedRole", "build_roles", "place_roles", "view_roles"]


@dataclass(frozen=True)
class NetworkRole:
    """A network behind a role.

    Args:
        family: knows how to ask the network.
        network: what is asked; may be wrapped for distributed training.
        autocast: makes the mixed-precision context.
        gate: makes the context that chooses the weights, entered for the duration of a call.
        trainable: whether gradients may flow.
        wanted: quantities that the objectives name, where the answer depends on it.
        max_rows: of one forward without gradient: more are asked one piece after another. None: all at once.
    """

    family: ModelFamily
    network: Network
    autocast: Manager = nullcontext
    gate: Manager = nullcontext
    trainable: bool = False
    wanted: frozenset[str] = frozenset()
    max_rows: int | None = None

    def __call__(self, rows: Rows, grad: bool = False, wanted: frozenset[str] | None = None) -> dict[str, Tensor]:
        if grad and not self.trainable:
            raise ConfigError("a frozen role was asked for gradients")
        if self.max_rows and not grad and len(pieces := rows.pieces(self.max_rows)) > 1:
            answers = [self(piece, wanted=wanted) for piece in pieces]
            return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}
        with torch.set_grad_enabled(grad), enter(self.gate), self.autocast():
            return self.family.answer(self.network, rows, self.wanted if wanted is None else wanted, self.trainable)


@dataclass(frozen=True)
class PlacedRole:
    """A role whose weights are in place, before the network is wrapped for several processes.

    Args:
        spec: as it was asked for.
        source: what ``auto`` turned out to be.
        held: where the weights lie.
        adapter: of the policy.
        shared: whether the network is the policy's.
    """

    spec: RoleSpec
    source: str
    held: Held
    adapter: Adapter
    shared: bool

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained of it: nothing, except of a peer."""
        return self.adapter.parameters(self.held) if self.spec.trained else []

    @property
    def frozen(self) -> bool:
        """Whether these weights must not change during a run."""
        return self.source != "policy" and not self.spec.trained and not self.spec.moves

    def weights(self) -> dict[str, Tensor]:
        """Return what moves, by the names of the policy's own state: the tensors themselves."""
        return self.adapter.state(self.held.network, self.held.name)

    def complaint(self) -> str | None:
        """Return why a frozen role would not stay as it is, or not answer alike twice; None: it does."""
        network, adapter = self.held.network, self.adapter
        own = [p for name, p in network.named_parameters() if not (self.shared and adapter.is_adapted(name))]
        if self.shared and self.source != "base":
            own += adapter.parameters(self.held)
        if any(parameter.requires_grad or parameter.grad is not None for parameter in own):
            return "it gets gradients"
        if network.training or any(m.training and m.p > 0 for m in network.modules() if isinstance(m, nn.Dropout)):
            return "it is in training mode, in which dropout is on"
        return None

    def digest(self) -> str:
        """Return the fingerprint of every weight with which the role answers."""
        if not self.shared:
            return digest(self.held.network.state_dict())
        base = self.adapter.unadapted(self.held.network)
        own = self.weights() if self.source != "base" else {}
        return digest({**base, **{f"adapter {name}": tensor for name, tensor in own.items()}})


def place_roles(
    specs: Mapping[str, RoleSpec],
    family: ModelFamily,
    adapter: Adapter,
    random: Random,
    prepare: Callable[[Network], object] = lambda network: None,
) -> dict[str, PlacedRole]:
    """Put the weights of every role in place.

    Args:
        specs: role name -> where its weights come from.
        family: holds the unwrapped network, already with its adapter, as it is when training starts.
        adapter: what is trained.
        random: of the run.
        prepare: what is done with networks that are loaded for a role, such as choosing the attention kernel.

    Raises:
        ConfigError: a line for each role that cannot be had as it was asked for.
        ModelError: nothing that can be loaded lies at a role's path.
    """
    placed, found = {}, []
    for name, spec in specs.items():
        try:
            placed[name] = _place(name, spec, family, adapter, random, prepare)
        except DiffprefError as error:
            found.append((f"roles.{name}.{error}", type(error)))
    if found:
        raise found[0][1]("\n".join(line for line, _ in found))
    return placed


def _place(
    name: str,
    spec: RoleSpec,
    family: ModelFamily,
    adapter: Adapter,
    random: Random,
    prepare: Callable[[Network], object],
) -> PlacedRole:
    network, source = family.network, spec.source
    if source == "auto":
        source = "base" if adapter.has_base and adapter.start is None and not spec.moves else "copy"
    if source in ("base", "initial") and not adapter.has_base:
        raise ConfigError(f"source: '{source}' needs an adapter that can be switched off; use 'copy'")
    if source == "base" and name == "reference" and adapter.start is not None:
        raise ConfigError(
            f"source: 'base' would leave out {adapter.start}, from which the policy starts: its log-ratios would not"
            " begin at 0; use 'auto' or 'copy', which keep that LoRA frozen beside the policy"
        )
    if source == "initial":
        source = "base"
    if source == "policy":
        held = Held(network)
    elif source == "base":
        held = Held(network, gate=partial(adapter.off, network))
    elif source == "copy":
        held = adapter.copy(family, name)
    elif source == "adapter":
        held = adapter.fresh(family, name, random)
    else:
        try:
            held = _open(name, str(spec.path), family, adapter, prepare)
        except ModelError as error:
            raise ModelError(f"path: {str(error).removeprefix('model.path: ')}") from error
    role = PlacedRole(spec, source, held, adapter, shared=held.network is network)
    if (spec.moves or spec.trained) and source == "path":
        _check_same_shape(role, adapter.state(network))
    for parameter in role.parameters:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return role


def _open(name: str, path: str, family: ModelFamily, adapter: Adapter, prepare: Callable[[Network], object]) -> Held:
    """Load a LoRA into the policy's network, or into a copy where the policy is the network; else a model."""
    network = family.network
    if is_lora(path):
        host = network if adapter.has_base else freeze(copy.deepcopy(network))
        load_lora(family, host, path, name)
        held = Held(host, name, partial(select_lora, host, name))
        if host is network:
            for parameter in adapter.parameters(held):
                parameter.data = parameter.data.float()
        return held
    own = next(p for n, p in network.named_parameters() if not adapter.is_adapted(n))
    if (Path(path) / "config.json").is_file():  # a network alone, as full fine-tuning leaves it
        loaded = freeze(load_component(type(network), path, "", dtype=own.dtype)).to(own.device)
    else:
        loaded = type(family).load(path, parts=("network",)).network.to(own.device, own.dtype)
    prepare(loaded)
    return Held(loaded)


def _check_same_shape(role: PlacedRole, policy: Mapping[str, Tensor]) -> None:
    weights: Mapping[str, Any] = role.weights() if role.shared or not role.adapter.has_base else {}
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in policy.items()}:
        raise ConfigError(f"path: {role.spec.path} is of another shape than the policy, so it can only stay as it is")


def view_roles(
    placed: Mapping[str, PlacedRole],
    family: ModelFamily,
    network: Network,
    autocast: Manager = nullcontext,
    wanted: Mapping[str, frozenset[str]] = MappingProxyType({}),
    max_rows: int | None = None,
) -> dict[str, Role]:
    """Return the policy and every placed role as what a step asks.

    Args:
        placed: from `place_roles`.
        family: holds the unwrapped network.
        network: the policy as the training loop wraps it.
        autocast: makes the mixed-precision context, the same for all roles.
        wanted: role -> quantities that the objectives name.
        max_rows: of one forward without gradient, of every role alike.
    """
    own = wanted.get("policy", frozenset())
    roles: dict[str, Role] = {"policy": NetworkRole(family, network, autocast, nullcontext, True, own, max_rows)}
    for name, role in placed.items():
        wrapped = role.shared and (role.spec.trained or role.source == "policy")
        asked = network if wrapped else role.held.network
        roles[name] = NetworkRole(
            family, asked, autocast, role.held.gate, role.spec.trained, wanted.get(name, frozenset()), max_rows
        )
    return roles


def build_roles(
    specs: Mapping[str, RoleSpec],
    family: ModelFamily,
    network: Network,
    adapter: Adapter,
    autocast: Manager = nullcontext,
    random: Random | None = None,
) -> dict[str, Role]:
    """Place roles and view them: `place_roles`, then `view_roles`."""
    return view_roles(place_roles(specs, family, adapter, random or Random(0)), family, network, autocast)

"""Roles: views of weights that answer questions.

Policy and reference run with the same rows, dtype and kernels, so that their answers are bit-equal until the first
update and every margin starts at exactly zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffpref.core.contracts import Role, RoleSpec, Rows
from diffpref.core.errors import ConfigError
from diffpref.models.adapters import Adapter
from diffpref.models.family import DenoiserFamily, Network
from diffpref.models.loading import freeze

__all__ = ["NetworkRole", "build_roles"]

Manager = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class NetworkRole:
    """A denoiser behind a role.

    Args:
        family: knows how to ask the network.
        network: what is asked; may be wrapped for distributed training.
        autocast: makes the mixed-precision context.
        gate: makes the context that chooses the weights, entered for the duration of a call.
        trainable: whether gradients may flow.
    """

    family: DenoiserFamily
    network: Network
    autocast: Manager = nullcontext
    gate: Manager = nullcontext
    trainable: bool = False

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        if grad and not self.trainable:
            raise ConfigError("a frozen role was asked for gradients")
        with torch.set_grad_enabled(grad), self.gate(), self.autocast():
            return {"prediction": self.family.forward(self.network, rows.inputs, rows.conditioning)}


def build_roles(
    specs: Mapping[str, RoleSpec],
    family: DenoiserFamily,
    network: Network,
    adapter: Adapter,
    autocast: Manager = nullcontext,
) -> dict[str, Role]:
    """Build the policy and every role that a method declares.

    Args:
        specs: role name -> where its weights come from.
        family: holds the unwrapped network, already with its adapter.
        network: the policy as the training loop wraps it.
        adapter: what is trained.
        autocast: makes the mixed-precision context, the same for all roles.

    Raises:
        ConfigError: ``base`` is asked of an adapter that cannot be switched off.
    """
    roles: dict[str, Role] = {"policy": NetworkRole(family, network, autocast, trainable=True)}
    for name, spec in specs.items():
        source = spec.source
        if source == "auto":
            source = "base" if adapter.has_base else "copy"
        if source == "base":
            if not adapter.has_base:
                raise ConfigError(f"role '{name}': source 'base' needs an adapter that can be switched off; use 'copy'")
            bare = family.network
            roles[name] = NetworkRole(family, bare, autocast, gate=partial(adapter.off, bare))
        elif source == "copy":
            roles[name] = NetworkRole(family, freeze(copy.deepcopy(family.network)), autocast)
        else:
            roles[name] = NetworkRole(family, network, autocast)
    return roles

"""Fast-slow chasing (OFS-DPO, arXiv:2406.05534): two adapters on one frozen model, which change places when it is time.

The policy is the fast module, the role ``peer`` the slow one, which learns at a lower rate. Every so many updates the
two are compared by their own DPO losses; when the slow one is ahead it takes the policy's place, with its moments and
its learning rate, so that what is deployed is always the one that leads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Context, RoleSpec, Tensors
from diffpref.core.errors import ConfigError
from diffpref.methods import registry
from diffpref.methods.denoising import Denoising
from diffpref.methods.language import Language

__all__ = ["DiffusionOFS", "LanguageOFS"]

SOURCE = "Qi et al., Online DPO: Online Direct Preference Optimization with Fast-Slow Chasing, arXiv:2406.05534"
ROLES = {"reference": RoleSpec(), "peer": RoleSpec("adapter", trained=True, learning_rate_scale=0.5)}
OBJECTIVES: list[tuple[str, Mapping[str, Any]]] = [("ofs_dpo", {})]
LOSSES = ("fast_dpo", "slow_dpo")


class _Swapping(Section):
    swap_every: PositiveInt = Field(default=100, description="updates between two looks at which module leads")


def _swapped(context: Context, every: int) -> Tensors:
    """Add an update's losses to those of the interval; at its end let the module with the lower ones be the policy."""
    if absent := [name for name in LOSSES if name not in context.metrics]:
        raise ConfigError(f"objective: fast-slow chasing reads {', '.join(absent)}, which ofs_dpo tells; name it")
    found = torch.tensor([context.metrics[name] for name in LOSSES], dtype=torch.float64)
    losses = context.state.get("interval_losses", torch.zeros(2, dtype=torch.float64)).cpu() + found
    swaps = context.state.get("swaps", torch.zeros((), dtype=torch.int64))
    if context.step % every == 0:
        if losses[1] < losses[0]:
            assert context.exchange is not None
            context.exchange("policy", "peer")
            swaps = swaps + 1
        losses = torch.zeros_like(losses)
    return {"interval_losses": losses, "swaps": swaps}


@registry.register("ofs_dpo", aliases=("ofs-dpo", "fast_slow_dpo"))
class LanguageOFS(Language, _Swapping):
    """Options of the method for language models."""

    source: ClassVar[str] = SOURCE
    evidence: ClassVar[str] = "secondary"

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return ROLES

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return OBJECTIVES

    def after_step(self, context: Context) -> Tensors:
        """Compare the two modules when it is time."""
        return _swapped(context, self.swap_every)


@registry.register("diffusion_ofs_dpo")
class DiffusionOFS(Denoising, _Swapping):
    """Options of the method for denoisers."""

    source: ClassVar[str] = SOURCE
    evidence: ClassVar[str] = "secondary"

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return ROLES

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return OBJECTIVES

    def after_step(self, context: Context) -> Tensors:
        """Compare the two modules when it is time."""
        return _swapped(context, self.swap_every)

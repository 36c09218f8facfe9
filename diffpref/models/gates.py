"""Gates: which of several sets of weights a network runs with, for the duration of a call.

Activation checkpointing runs parts of a call a second time, in the backward pass, when the call is long over. A gate is
therefore entered there again: nothing is ever left switched behind, and nothing is recomputed with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch.utils.checkpoint import checkpoint

__all__ = ["Manager", "enter", "recompute"]

Manager: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Makes a context."""

_entered: ContextVar[Manager] = ContextVar("gate", default=nullcontext)


@contextmanager
def enter(gate: Manager) -> Iterator[None]:
    """Run with a gate's weights; `recompute` knows which gate it was."""
    token = _entered.set(gate)
    try:
        with gate():
            yield
    finally:
        _entered.reset(token)


def recompute(module: Any, *args: Any, **named: Any) -> Any:
    """Call a module or function and forget its activations; they are computed again going back, under the same gate.

    To be given to diffusers: ``network.enable_gradient_checkpointing(recompute)``.
    """
    gate = _entered.get()
    # a compiled block has the weights of its call built in
    if gate is not nullcontext and not torch.compiler.is_compiling():
        named["context_fn"] = lambda: (nullcontext(), enter(gate))
    return checkpoint(module.__call__, *args, use_reentrant=False, **named)

"""What a caller sees of the steps: a progress bar, and ``callback_on_step_end`` as diffusers' own pipelines call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from diffpref.core.errors import ConfigError
from diffpref.sampling import OnStep
from diffpref.schedules import FlowSchedule, Schedule

__all__ = ["Callback", "check_callback", "watched"]

Callback: TypeAlias = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""Pipeline, number of the step, timestep and the asked tensors to tensors that replace them."""
SEEN = ("latents",)


def check_callback(callback: Callback | None, tensor_inputs: Sequence[str]) -> None:
    """Refuse what no step can hand out.

    Raises:
        ConfigError: no callable, or a tensor that is not known.
    """
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback_on_step_end: must be callable, got {type(callback).__name__}")
    if unknown := [name for name in tensor_inputs if name not in SEEN]:
        raise ConfigError(f"callback_on_step_end_tensor_inputs: '{unknown[0]}' is not known; known: {', '.join(SEEN)}")


def watched(
    pipe: Any, schedule: Schedule, bar: Any, callback: Callback | None, tensor_inputs: Sequence[str], done: int = 0
) -> OnStep:
    """Return what `sampling` calls after each step.

    Args:
        pipe: handed to the callback.
        schedule: tells a flow's levels from timesteps, which diffusers counts in the length of its table.
        bar: advanced by one a step.
        callback: of the caller.
        tensor_inputs: what it asks to see.
        done: steps that came before the first.
    """
    length = schedule.table_length if isinstance(schedule, FlowSchedule) else 1

    def on_step(step: int, timesteps: Tensor, latents: Tensor) -> Tensor:
        bar.update()
        if callback is None:
            return latents
        told = {"latents": latents} if "latents" in tensor_inputs else {}
        return (callback(pipe, done + step, timesteps[0] * length, told) or {}).get("latents", latents)

    return on_step

"""Fast and slow change places when the slow one leads, and not before it is time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diffpref import methods
from diffpref.core.contracts import Context
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random

NAMES = ["ofs_dpo", "diffusion_ofs_dpo"]


def run(name: str, losses: list[tuple[float, float]], every: int) -> tuple[list[int], dict[str, Any]]:
    """Return after which updates the modules were swapped, and the method's memory at the end."""
    method: Any = methods.registry.get(name).model_validate({"swap_every": every})
    swapped: list[int] = []
    state: Any = {}
    for number, (fast, slow) in enumerate(losses, start=1):
        context = Context(
            None, {}, Random(0), step=number, state=state, metrics={"fast_dpo": fast, "slow_dpo": slow},
            exchange=lambda one, other, step=number: swapped.append(step) or ({one, other} == {"policy", "peer"}),
        )  # fmt: skip
        state = method.after_step(context)
    return swapped, state


@pytest.mark.parametrize("name", NAMES)
def test_the_module_with_the_lower_losses_of_an_interval_becomes_the_fast_one(name: str) -> None:
    lagging = [(0.5, 0.9), (0.9, 0.4), (0.1, 0.9), (0.7, 0.6), (0.7, 0.6), (0.7, 0.6)]
    swapped, state = run(name, lagging, 2)
    assert swapped == [2, 6]  # 1.4 against 1.3; 0.8 against 1.5; 1.4 against 1.2
    assert state["swaps"].item() == 2 and state["interval_losses"].tolist() == [0.0, 0.0]
    assert run(name, lagging[:1], 2)[1]["interval_losses"].tolist() == pytest.approx([0.5, 0.9])
    assert run(name, [(0.5, 0.5)] * 3, 1)[0] == []  # equal: nothing leads


@pytest.mark.parametrize("name", NAMES)
def test_the_slow_module_starts_for_itself_and_learns_at_a_lower_rate(name: str) -> None:
    peer = methods.registry.get(name)().roles["peer"]
    assert peer.source == "adapter" and peer.trained and peer.learning_rate_scale < 1
    assert list(methods.registry.get(name)().objectives) == [("ofs_dpo", {})]


def test_an_objective_that_does_not_tell_both_losses_is_refused() -> None:
    method: Any = methods.registry.get("ofs_dpo")()
    context = Context(None, {}, Random(0), step=1, metrics={"fast_dpo": 0.5})
    with pytest.raises(ConfigError, match="slow_dpo, which ofs_dpo tells"):
        method.after_step(context)
    told = replace(context, metrics={"fast_dpo": 0.5, "slow_dpo": 0.6}, state={"interval_losses": torch.ones(2)})
    assert method.after_step(told)["interval_losses"].tolist() == pytest.approx([1.5, 1.6])

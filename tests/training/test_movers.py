"""The rules by which roles move, and the average of the policy, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import Ema as EmaSettings
from diffpref.core.contracts import Ema, Every, RoleSpec, Snapshots
from diffpref.core.errors import CheckpointError
from diffpref.core.randomness import Random
from diffpref.training.average import PolicyAverage, copy_over, move_towards
from diffpref.training.movers import Mover, make_mover


def weights(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((2, 3), value), "steps": torch.tensor(int(value))}


class Run:
    """A policy that is ``n`` after ``n`` updates, and a role that begins at 0."""

    def __init__(self, rule: Any, seed: int = 0, name: str = "reference") -> None:
        self.policy, self.role = weights(0.0), weights(0.0)
        self.mover: Mover = make_mover(name, RoleSpec("copy", rule), self.role, self.policy, Random(seed))
        self.done = 0

    def go(self, updates: int) -> list[float]:
        """Return the role's value after each update."""
        seen = []
        for _ in range(updates):
            self.done += 1
            copy_over(self.policy, weights(float(self.done)))
            self.mover.after_update(self.done)
            seen.append(self.role["a"][0, 0].item())
        return seen


def test_every_copies_after_so_many_updates() -> None:
    assert Run(Every(2)).go(5) == [0, 2, 2, 4, 4]


def test_every_moves_by_a_share() -> None:
    assert Run(Every(2, tau=0.25)).go(4) == [0, 0.5, 0.5, 0.5 + 0.25 * 3.5]


def test_ema_keeps_a_share_of_itself() -> None:
    assert Run(Ema(0.75)).go(3) == [0.25, 0.75 * 0.25 + 0.5, 0.75 * (0.75 * 0.25 + 0.5) + 0.75]
    assert Run(Ema(0.75, every=2)).go(4) == [0, 0.5, 0.5, 0.75 * 0.5 + 1]


def test_ema_ramps_up_as_diffusion_nft_does() -> None:
    """Its second schedule: flat 75, rate 0.0075, hold 0.999."""
    rule = Ema(decay=0.999, ramp=0.0075, flat=75)
    assert [rule.decay_at(n) for n in (0, 75, 76, 175, 1000)] == [0, 0, 0.0075, 0.75, 0.999]
    assert Run(Ema(0.5, ramp=0.25, flat=1)).go(4) == [1, 2, 0.25 * 2 + 0.75 * 3, 0.5 * 2.75 + 0.5 * 4]


def test_a_role_that_never_moves_within_a_run_moves_when_a_round_ends() -> None:
    run = Run("round")
    assert run.go(3) == [0, 0, 0]
    run.mover.next_round()
    assert run.role["a"][0, 0] == 3 and run.role["steps"] == 3
    for other in (Every(9), Ema(0.5, every=9), Snapshots(every=9)):
        still = Run(other)
        still.go(3)
        still.mover.next_round()
        assert still.role["a"][0, 0] == 0


def test_snapshots_are_drawn_uniformly_by_key_from_all_that_was_before() -> None:
    seen = [Run(Snapshots(every=1, keep=99), seed).go(6)[-1] for seed in range(300)]
    counts = [seen.count(float(k)) for k in range(7)]
    assert sum(counts) == 300 and min(counts) > 20  # 43 expected of each of the seven
    assert Run(Snapshots(every=1), 5).go(6) == Run(Snapshots(every=1), 5).go(6) != Run(Snapshots(every=1), 6).go(6)
    assert Run(Snapshots(every=1), 5).go(9) != Run(Snapshots(every=1), 5, name="previous").go(9)


def test_snapshots_are_taken_and_drawn_only_when_due() -> None:
    run = Run(Snapshots(every=3, draw="latest"))
    assert run.go(8) == [0, 0, 3, 3, 3, 6, 6, 6]
    assert Run(Snapshots(every=1, draw="initial")).go(4) == [0, 0, 0, 0]
    assert Run(Snapshots(every=2, draw="latest", draw_every=3)).go(7) == [0, 0, 2, 2, 2, 6, 6]


def test_the_start_the_newest_and_the_one_in_force_are_kept() -> None:
    run = Run(Snapshots(every=1, draw="latest", keep=3))
    run.go(6)
    assert {key.split("/")[0] for key in run.mover.state()} == {"0", "5", "6", "current"}
    held = Run(Snapshots(every=1, keep=2, draw="latest", draw_every=4))
    held.go(6)  # snapshot 4 is in force, 6 is the newest
    assert {key.split("/")[0] for key in held.mover.state()} == {"0", "4", "6", "current"}


@pytest.mark.parametrize(
    "rule", [Every(2), Every(2, 0.5), Ema(0.9, 2), Snapshots(2, keep=3), Snapshots(1, draw_every=3, keep=2), "round"]
)
def test_a_mover_goes_on_where_its_state_says(rule: Any) -> None:
    straight, broken = Run(rule, 3), Run(rule, 3)
    straight.go(7), broken.go(7)
    state = {name: tensor.clone() for name, tensor in broken.mover.state().items()}
    again = Run(rule, 3)
    again.done = 7
    again.mover.load(state)
    assert torch.equal(again.role["a"], straight.role["a"])
    assert again.go(8) == straight.go(8)


def test_the_state_of_other_weights_is_refused() -> None:
    for rule in (Every(1), Snapshots(1)):
        run = Run(rule)
        state = {name: t[:1] if t.dim() else t for name, t in run.mover.state().items()}
        with pytest.raises(CheckpointError, match="the weights of a role do not fit"):
            run.mover.load(state)


def test_a_share_of_one_copies_the_bits() -> None:
    source, target = {"a": torch.randn(1000)}, {"a": torch.randn(1000) * 1e6}
    move_towards(target, source, 1.0)
    assert torch.equal(target["a"], source["a"])


# ---------------------------------------------------------------- the average of the policy


def test_the_average_is_the_exponential_one_and_float32() -> None:
    policy = {"a": torch.zeros(3, dtype=torch.bfloat16), "steps": torch.tensor(0)}
    average = PolicyAverage(EmaSettings(decay=0.999, warmup=False), policy)
    expected = 0.0
    for done in range(1, 200):
        policy["a"].fill_(1 + done / 64)
        policy["steps"].fill_(done)
        average.after_update(done)
        expected += (1 - 0.999) * (policy["a"][0].item() - expected)
    assert average.tensors["a"].dtype == torch.float32 and average.tensors["steps"] == 199
    assert average.tensors["a"][0].item() == pytest.approx(expected, rel=1e-5)  # in bfloat16 it would not have moved


def test_warming_up_the_average_soon_forgets_the_start() -> None:
    average = PolicyAverage(EmaSettings(decay=0.9, every=2), {"a": torch.zeros(1)})
    assert [average.decay_at(n) for n in (0, 1, 8, 1000)] == [0.1, 2 / 11, 0.5, 0.9]
    average.policy["a"].fill_(1.0)  # type: ignore[attr-defined]
    average.after_update(1)
    assert average.tensors["a"] == 0
    average.after_update(2)
    assert average.tensors["a"].item() == pytest.approx(0.9)


def test_applying_the_average_gives_back_every_bit() -> None:
    policy = {"a": torch.randn(5), "steps": torch.tensor(3)}
    average = PolicyAverage(EmaSettings(decay=0.5), policy)
    policy["a"].mul_(3.0)
    before = policy["a"].clone()
    with pytest.raises(ZeroDivisionError), average.applied():
        assert torch.equal(policy["a"], average.tensors["a"]) and not torch.equal(policy["a"], before)
        raise ZeroDivisionError
    assert torch.equal(policy["a"], before)
    with pytest.raises(CheckpointError, match="the average of the policy does not fit"):
        average.load({"a": torch.zeros(4), "steps": torch.tensor(1)})

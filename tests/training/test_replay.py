"""Replay is the joint gradient, so neither accumulation nor the number of processes changes a method."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.errors import NonFiniteError
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("toy_objectives")
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})
TOYS = ("toy_anchored", "toy_centred", "toy_remembers")


def moved(keys: dict[str, Any]) -> Trainer:
    """Return a trainer in float64 that is no longer where it started, so that log-ratios differ from zero."""
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    trainer.bare.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.updater.trained:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return trainer


def gradient(trainer: Trainer, size: int, replay: str = "auto") -> Tensor:
    """Return the gradient of an update of 4 records, clipping and step left out."""
    shape = {"batch_size": size, "accumulation": 4 // size, "replay": replay}
    training = trainer.recipe.training.model_copy(update=shape)
    updater = replace(trainer.updater, recipe=trainer.recipe.model_copy(update={"training": training}), flags=set())
    parts = divided(trainer, size)
    if updater._couples(4) or updater._accumulate(parts, 1, 4) is None:
        updater._replay(parts, 1)
    return taken(trainer)


def divided(trainer: Trainer, size: int) -> list[list[tuple[int, int]]]:
    items = trainer.batches.sampler.batch(0, 4)
    return [items[i : i + size] for i in range(0, 4, size)]


def taken(trainer: Trainer) -> Tensor:
    found = torch.cat([p.grad.reshape(-1) for p in trainer.updater.trained if p.grad is not None])
    trainer.updater.optimizer.zero_grad()
    return found


WEIGHTS = [{"dpo": {"beta": 20}}, {"toy_weighted": {"coefficient": 0.5}}]


@pytest.mark.parametrize(
    ("objective", "adapter"),
    [*((toy, KINDS[0]) for toy in TOYS), ("toy_centred", KINDS[1]), ("dpo", KINDS[0]), (WEIGHTS, KINDS[0])],
    ids=[*TOYS, "full", "dpo", "weights"],
)
def test_replay_gives_the_joint_gradient(recipe_keys: Keys, objective: Any, adapter: dict[str, Any]) -> None:
    trainer = moved(recipe_keys(objective=objective, adapter=adapter))
    joint = gradient(trainer, 4)
    assert joint.dtype == torch.float64 and joint.norm() > 0
    for size, replay in ((1, "auto"), (2, "auto"), (4, "always"), (2, "always")):
        assert (gradient(trainer, size, replay) - joint).norm() <= 1e-6 * joint.norm()


def test_a_coupled_objective_is_another_one_where_it_sees_less(recipe_keys: Keys) -> None:
    """Else the test above would pass without replay."""
    trainer = moved(recipe_keys(objective="toy_centred"))
    joint = gradient(trainer, 4)
    trainer.updater._accumulate(divided(trainer, 1), 1, 4)
    assert (taken(trainer) - joint).norm() > 1e-2 * joint.norm()


@pytest.mark.parametrize("objective", [*TOYS, WEIGHTS], ids=[*TOYS, "weights"])
def test_one_by_eight_is_eight_by_one_for_coupled_objectives(recipe_keys: Keys, objective: Any, tmp_path: Path) -> None:
    (whole, expected), (other, rows) = (
        run(
            recipe_keys(
                output=str(tmp_path / str(size)),
                objective=objective,
                optim__learning_rate=1e-3,
                training={"steps": 2, "batch_size": size, "accumulation": 8 // size},
            )
        )
        for size in (8, 1)
    )
    for row, wanted in zip(rows, expected, strict=True):
        assert row.keys() == wanted.keys()
        for name in {name for name in wanted if not name.startswith("perf/")}:
            assert row[name] == pytest.approx(wanted[name], rel=2e-5, abs=2e-5), name
    assert (weights(other) - weights(whole)).norm() <= 1e-5 * weights(whole).norm()
    assert other.updater.state.keys() == whole.updater.state.keys()
    for name, value in whole.updater.state.items():
        torch.testing.assert_close(other.updater.state[name], value, rtol=1e-4, atol=1e-6)
    assert expected[-1]["rewards/margins"] != 0


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


def test_running_statistics_are_committed_once_an_update(recipe_keys: Keys) -> None:
    for accumulation in (1, 2):
        shape = {"steps": 3, "batch_size": 2, "accumulation": accumulation}
        keys = recipe_keys(objective="toy_remembers", training=shape, optim__learning_rate=1e-3)
        trainer, _ = run({**keys, "output": f"{keys['output']}-{accumulation}"})
        assert int(trainer.updater.state["0.updates"]) == 3 and trainer.updater.state["0.mean"] != 0


def test_replay_asks_the_reference_once_and_the_policy_twice(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(training={"batch_size": 2, "accumulation": 2, "replay": "always"})))
    trainer.setup()
    asked: list[tuple[str, bool]] = []

    def counted(name: str, role: Any) -> Any:
        def call(rows: Any, grad: bool = False) -> Any:
            asked.append((name, grad))
            return role(rows, grad)

        return call

    roles = trainer.roles
    roles.update({name: counted(name, role) for name, role in roles.items()})
    next(trainer.steps())
    counts = {key: asked.count(key) for key in set(asked)}
    assert counts == {("reference", False): 2, ("policy", False): 2, ("policy", True): 2}


def test_terms_that_differ_in_weights_are_told_and_replayed(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    keys = recipe_keys(objective=["dpo", "toy_weighted"], training={"steps": 4, "batch_size": 2, "accumulation": 2})
    with caplog.at_level(logging.INFO):
        trainer, _ = run({**keys, "optim": {"learning_rate": 1e-2}})
    assert caplog.text.count("differ in their weights: updates are replayed from now on") == 1
    assert trainer.updater.flags == {"replay"}


def test_a_loss_that_is_not_finite_is_named_before_the_second_forward(recipe_keys: Keys) -> None:
    trainer = Trainer(
        build_recipe(recipe_keys(objective="toy_anchored", training={"batch_size": 2, "accumulation": 2}))
    )
    trainer.setup()
    item = trainer.batches.sampler.batch(0, 4)[3]
    (bad,) = trainer.batches.keys([item])
    batch = trainer.batches.batch

    def poisoned(items: Any) -> Any:
        made = batch(items)
        if item in items:
            made.media["chosen"][list(items).index(item)] = torch.nan
        return made

    object.__setattr__(trainer.batches, "batch", poisoned)
    before = weights(trainer).clone()
    # the mean over the batch carries it to every record
    with pytest.raises(NonFiniteError, match=rf"update 1: the loss is not finite; nothing was changed.*{bad[0]}"):
        next(trainer.steps())
    assert torch.equal(weights(trainer), before) and all(p.grad is None for p in trainer.updater.trained)

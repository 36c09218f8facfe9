"""A run begins where policy and reference are one model, and says so; one that does not is stopped before it learns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.training import Trainer
from diffpref.training.plan import make_plan
from diffpref.training.start import starts_at_reference

Keys = Callable[..., dict[str, Any]]
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})
WAYS = {
    "plain": {},
    "bf16": {"model__precision": "bf16"},
    "checkpointed": {"model__gradient_checkpointing": True},
    "accumulated": {"training": {"steps": 1, "batch_size": 1, "accumulation": 4}},
}


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
@pytest.mark.parametrize("way", WAYS)
def test_policy_and_reference_are_one_model_at_the_first_update_and_the_run_says_so(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture, adapter: dict[str, Any], way: str
) -> None:
    caplog.set_level(logging.INFO, logger="diffpref")
    first = next(Trainer(build_recipe(recipe_keys(adapter=adapter, **WAYS[way]))).steps())
    assert "start: largest |log-ratio| 0, largest |logit| 0 (times beta 5000)" in caplog.text
    assert first["rewards/margins"] == 0.0


class _Moved:
    """A reference that answers a little differently, by the same rows."""

    def __init__(self, role: Any, by: float) -> None:
        self.role, self.by = role, by

    def __call__(self, rows: Any, grad: bool = False) -> dict[str, torch.Tensor]:
        return {name: value * (1 + self.by) for name, value in self.role(rows, grad).items()}


def moved(keys: dict[str, Any], by: float) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    trainer.roles["reference"] = _Moved(trainer.roles["reference"], by)  # type: ignore[assignment]
    return trainer


def test_a_reference_that_is_not_the_start_stops_before_the_first_update(recipe_keys: Keys) -> None:
    trainer = moved(recipe_keys(), 1e-4)
    before = [parameter.detach().clone() for parameter in trainer.updater.trained]
    with pytest.raises(ConfigError, match=r"update 1: the policy should begin as the reference, but a logit is \d"):
        next(trainer.steps())
    assert all(torch.equal(old, now) for old, now in zip(before, trainer.updater.trained, strict=True))
    assert not (trainer.output / "checkpoints").exists()


def test_what_rounding_makes_of_it_is_told_and_goes_on(recipe_keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="diffpref")
    trainer = moved(recipe_keys(objective={"dpo": {"beta": 1.0}}), 1e-6)
    next(trainer.steps())
    (line,) = [message for message in caplog.messages if message.startswith("start: ")]
    ratio, logit = (float(part.split()[0].rstrip(",")) for part in line.split("| ")[1:])
    assert 0 < ratio <= logit < 1e-4


def test_only_a_reference_that_is_the_start_promises_zero(recipe_keys: Keys) -> None:
    assert starts_at_reference(make_plan(build_recipe(recipe_keys())))
    trainer = moved(recipe_keys(training__steps=4, roles={"reference": {"source": "policy"}}), 1e-4)
    assert not starts_at_reference(trainer.plan)
    assert [row["step"] for row in trainer.steps()] == [1, 2, 3, 4]


def test_a_method_without_a_reference_has_nothing_to_compare(
    recipe_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="diffpref")
    next(Trainer(build_recipe(recipe_keys(method="sft"))).steps())
    assert "start:" not in caplog.text

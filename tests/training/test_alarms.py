"""What is watched over a run: the error of the chosen samples, and the scale of the logits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffpref.config import Guards, build_recipe
from diffpref.core.errors import ConfigError
from diffpref.likelihood import convert_beta
from diffpref.objectives import objective, registry
from diffpref.schedules import DiscreteSchedule
from diffpref.training import Trainer
from diffpref.training.alarms import FIRST_UPDATES, LogitCheck, WinnerAlarm
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]


def told(alarm: WinnerAlarm, rises: list[float], level: float = 2.0) -> list[dict[str, float]]:
    """Return what an alarm says of updates with these rises above the reference's error."""
    return [
        alarm(step, {"errors/chosen": level + rise, "errors/chosen_vs_reference": rise})
        for step, rise in enumerate(rises, start=1)
    ]


def test_the_alarm_averages_and_asks_for_patience(caplog: pytest.LogCaptureFixture) -> None:
    alarm = WinnerAlarm(Guards(winner_epsilon=0.05, winner_window=2, winner_patience=2))
    with caplog.at_level(logging.WARNING):
        said = told(alarm, [0.0, 0.4, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0])
    smoothed = [0.0, 0.2, 0.3, 0.35, 0.175, 0.0875, 0.04375, 0.021875]
    assert [row["guards/winner_error"] for row in said] == pytest.approx([value / 2 for value in smoothed])
    assert [step for step, row in enumerate(said, start=1) if "guards/winner_alarm" in row] == [4]
    (record,) = caplog.records
    assert record.getMessage().startswith("update 4: the policy denoises the chosen samples 17.5 % worse than")
    assert not alarm.fired and not alarm.ended  # it went back below its limit, and would ring again


def test_one_bad_look_is_no_alarm_and_updates_without_a_reference_are_none() -> None:
    alarm = WinnerAlarm(Guards(winner_epsilon=0.05, winner_window=1, winner_patience=2))
    assert not any("guards/winner_alarm" in row for row in told(alarm, [1.0, 0.0, 1.0, 0.0, 1.0]))
    assert alarm(6, {"loss": 1.0}) == {} and alarm(7, {"errors/chosen": 1.0}) == {}
    off = WinnerAlarm(Guards(winner_error="off", winner_window=1, winner_patience=1))
    assert told(off, [9.0] * 3) == [{}] * 3


def test_a_stored_alarm_goes_on_where_it_was() -> None:
    settings = Guards(winner_epsilon=0.0, winner_window=2, winner_patience=2)
    whole, first = WinnerAlarm(settings), WinnerAlarm(settings)
    rises = [0.1, 0.3, 0.2, 0.4]
    expected = told(whole, rises)
    told(first, rises[:3])
    second = WinnerAlarm(settings)
    second.load_state(json.loads(json.dumps(first.state())))
    said = second(4, {"errors/chosen": 2.4, "errors/chosen_vs_reference": 0.4})
    assert said == expected[3] and "guards/winner_alarm" in said


@pytest.fixture
def unlearn() -> Iterator[None]:
    """An objective that makes the chosen samples less likely."""

    @objective("toy_unlearn", kind="supervised", source="ours", evidence="ours")
    def unlearn(*, chosen_log_ratio: Tensor) -> Tensor:
        return chosen_log_ratio

    yield
    del registry._things["toy_unlearn"], registry._origins["toy_unlearn"]


def unlearning(recipe_keys: Keys, **guards: Any) -> dict[str, Any]:
    """A run that ruins the model within a few updates."""
    return recipe_keys(
        adapter={"kind": "full"},
        objective="toy_unlearn",
        optim__learning_rate=3e-4,
        training={"steps": 12, "batch_size": 2, "checkpoint_every": 1, "keep": 1},
        guards={"winner_epsilon": 0.05, "winner_window": 1, "winner_patience": 2, **guards},
    )


@pytest.mark.parametrize("policy", ["warn", "stop", "roll_back"])
def test_what_follows_when_good_pictures_are_unlearnt(
    recipe_keys: Keys, unlearn: None, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = unlearning(recipe_keys, winner_error=policy)
    keys["training"]["ema"] = {"decay": 0.5}
    trainer = Trainer(build_recipe(keys))
    with caplog.at_level(logging.WARNING, logger="diffpref.training.alarms"):
        output = trainer.fit()
    rows = read_metrics(output / "metrics.jsonl")
    rang = [row["step"] for row in rows if "guards/winner_alarm" in row]
    heard = [r.getMessage() for r in caplog.records if r.name == "diffpref.training.alarms"]
    assert len(rang) == len(heard) == 1 and f"update {rang[0]}: " in heard[0]
    errors = {row["step"]: row["guards/winner_error"] for row in rows}
    assert errors[rang[0]] > 0.05 and errors[rang[0] - 1] > 0.05
    assert rows[-1]["step"] == (12 if policy == "warn" else rang[0]) and rang[0] < 12
    saved = {int(path.name[5:]) for path in (output / "checkpoints").iterdir()}
    if policy != "roll_back":
        assert saved == {rows[-1]["step"]} and trainer.step == rows[-1]["step"]
        return
    good = max(step for step in errors if step < rang[0] - 1 and errors[step] <= 0.05)
    assert rows[-1]["guards/rolled_back_to"] == good == trainer.step and saved == {good, rang[0]}
    for part, folder in (("policy", "model"), ("ema", "model_ema")):  # the average is that of before, too
        kept = load_file(output / "checkpoints" / f"step-{good:06d}" / f"{part}.safetensors")
        result = load_file(output / folder / "diffusion_pytorch_model.safetensors")
        assert result and all(torch.equal(kept[name], result[name]) for name in result), part
    again = Trainer(build_recipe(keys))  # the same command once more ends the same way, without a step
    assert list(again.steps()) == [] and again.step == good


def test_a_damaged_checkpoint_is_passed_over_when_rolling_back(recipe_keys: Keys, unlearn: None) -> None:
    keys = unlearning(recipe_keys, winner_error="roll_back")
    keys["training"]["keep"] = 12
    trainer = Trainer(build_recipe(keys))
    rows = []
    for row in trainer.steps():
        rows.append(row)
        if good := int(row.get("guards/rolled_back_to", 0)):
            path = trainer.output / "checkpoints" / f"step-{good:06d}" / "policy.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
    sound = [row["step"] for row in rows if row["guards/winner_error"] <= 0.05]
    assert sound[-1] == rows[-1]["guards/rolled_back_to"] and trainer.step == sound[-2] > 0


def test_ending_a_run_needs_what_it_looks_at(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"guards\.winner_error: stop needs a reference"):
        Trainer(build_recipe(recipe_keys(method="sft", guards={"winner_error": "stop"})))
    with pytest.raises(
        ConfigError, match=r"guards\.winner_error: roll_back needs training\.checkpoint_every > 0, got 0"
    ):
        build_recipe(recipe_keys(guards={"winner_error": "roll_back"}))


# ------------------------------------------------------------ the scale of the logits


def check(beta: float, weighting: str = "simple") -> LogitCheck:
    return LogitCheck(beta, weighting, lambda: 16384, DiscreteSchedule.from_config({}))


def looked(one: LogitCheck, scales: list[float], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for step, scale in enumerate(scales, start=1):
            one(step, {"logits/scale": scale})
    return [record.getMessage() for record in caplog.records]


def test_an_implausible_beta_is_told_once_with_its_likely_cause(caplog: pytest.LogCaptureFixture) -> None:
    (tiny,) = looked(check(0.1), [0.0] + [2e-6] * 30, caplog)
    other = convert_beta(0.1, source="nats", target="official", num_elements=16384, schedule=check(0.1).schedule)
    assert tiny.startswith("update 20: logits are tiny (at most 2e-06 in 20 updates)")
    assert "beta 0.1 looks like nats" in tiny and f"(0.1 nats would be {other:.3g})" in tiny
    (saturated,) = looked(check(5000, "elbo"), [0.0, 3.0, 25.0, 90.0], caplog)
    assert saturated.startswith("update 3: logits are saturated (mean magnitude 25)")
    assert "likelihood.weighting: elbo gives nats; there it would be 0.0" in saturated
    (high,) = looked(check(5e6), [0.0, 21.0], caplog)
    assert "Lower beta (now 5e+06)" in high


def test_plausible_logits_late_ones_and_none_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    assert looked(check(5000), [0.0] + [1e-3] * FIRST_UPDATES, caplog) == []
    assert looked(check(5000), [0.0] + [0.1] * FIRST_UPDATES + [30.0], caplog) == []
    assert looked(replace(check(1.0), beta=None), [99.0], caplog) == []
    resumed = check(0.1)
    resumed(FIRST_UPDATES + 1, {"logits/scale": 0.0})
    assert not resumed.told


@pytest.mark.parametrize(("beta", "tiny"), [(0.1, True), (5000.0, False)])
def test_a_text_beta_is_noticed_in_a_run(
    recipe_keys: Keys, beta: float, tiny: bool, caplog: pytest.LogCaptureFixture
) -> None:
    keys = recipe_keys(objective={"dpo": {"beta": beta}}, training={"steps": 20, "batch_size": 1})
    with caplog.at_level(logging.WARNING, logger="diffpref.training.alarms"):
        rows = list(Trainer(build_recipe(keys)).steps())
    assert (["logits are tiny" in r.getMessage() for r in caplog.records] == [True]) is tiny
    assert rows[-1]["logits/scale"] > 0

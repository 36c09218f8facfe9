"""What the launcher says and what the recipe says of number formats."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.training.launch import launch, launched_precision, sharding_options

Keys = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("recipe", "launcher", "expected"),
    [
        ("fp32", None, "fp32"),
        ("fp32", "no", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("fp16", "no", "fp16"),
        ("fp16", "fp16", "fp16"),
    ],
)
def test_the_launchers_precision_takes_the_place_of_the_default(
    recipe_keys: Keys, recipe: str, launcher: str | None, expected: str
) -> None:
    given = build_recipe(recipe_keys(model__precision=recipe))
    assert launched_precision(given, launcher).model.precision == expected


@pytest.mark.parametrize(("recipe", "launcher"), [("fp16", "bf16"), ("bf16", "fp16"), ("fp32", "fp8")])
def test_two_different_precisions_are_refused(recipe_keys: Keys, recipe: str, launcher: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.precision: is {recipe}, but .* --mixed_precision {launcher}"):
        launched_precision(build_recipe(recipe_keys(model__precision=recipe)), launcher)


REFUSED = {
    "deepspeed": ({"ACCELERATE_USE_DEEPSPEED": "true"}, r"training under DeepSpeed is not supported; launch with DDP"),
    "megatron": ({"ACCELERATE_USE_MEGATRON_LM": "true"}, r"training under Megatron-LM is not supported"),
    "fsdp 1": ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, r"FSDP 1 is not supported; add --fsdp_version 2"),
    "fsdp, by default 1": ({"ACCELERATE_USE_FSDP": "true"}, r"add --fsdp_version 2"),
    "its checkpointing": (
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
        r"fsdp_activation_checkpointing: not used here; set model\.gradient_checkpointing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_launcher_asks_and_the_loop_does_not_do_is_one_line(case: str, monkeypatch: Any) -> None:
    environment, told = REFUSED[case]
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told) as caught:
        launch()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__compile": "full"}, r"model\.compile: full does not go with FSDP2"),
        ({"optim__kind": "adamw8bit"}, r"optim\.kind: adamw8bit does not go with FSDP2"),
    ],
)
def test_what_does_not_go_with_sharding_is_refused_before_anything_is_loaded(
    recipe_keys: Keys, monkeypatch: Any, changes: dict[str, Any], told: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    several: Any = SimpleNamespace(use_distributed=True, is_fsdp2=False)
    with pytest.raises(ConfigError, match=told):
        sharding_options(several, build_recipe(recipe_keys(**changes)))


def test_without_several_processes_nothing_is_sharded(recipe_keys: Keys, monkeypatch: Any) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    alone: Any = SimpleNamespace(use_distributed=False, is_fsdp2=False)
    assert sharding_options(alone, build_recipe(recipe_keys(model__compile="full"))) is None

"""What the launcher says and what the recipe says of number formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.training.launch import launched_precision

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

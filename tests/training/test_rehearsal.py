"""What an objective would refuse at the first update is told before anything is loaded; nothing else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.objectives import compose, registry
from diffpref.training import Trainer
from diffpref.training.rehearsal import stand_ins

Keys = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("likelihood", ["denoising", "tokens"])
def test_no_objective_refuses_stand_ins(likelihood: str) -> None:
    for name in registry:
        composition = compose([(name, {})], likelihood)
        names = [*composition.tensors, *composition.optional]
        domains = {key: bounds for term in composition.terms for key, bounds in term.spec.domain.items()}
        composition(stand_ins(names, 4, domains), composition.initial_state())


@pytest.mark.parametrize(
    ("objective", "data", "message"),
    [
        ({"ipo": {"length_normalize": True}}, {}, "ipo: length_normalize needs the columns chosen_length and rejected"),
        (
            {"lipo_lambda": {}},
            {"list_scores": "raw"},
            r"list_scores must lie in \[0, 1\], got 3 to 6; set labels=minmax",
        ),
    ],
)
def test_an_objective_s_own_refusal_comes_before_a_model_is_loaded(
    recipe_keys: Keys, objective: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    changes = {f"data__{name}": value for name, value in data.items()}
    keys = recipe_keys(objective=objective, method="denoising", model__path="/nowhere", **changes)
    with pytest.raises(ConfigError, match=message):
        Trainer(build_recipe(keys)).setup()
